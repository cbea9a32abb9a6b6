// Package consumers runs the examples of config/samples/consumers, in their languages, beside the operator and the
// stand-in: over several refreshes, without one call by a dead token.
package consumers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

var shared harness.Shared

func TestMain(m *testing.M) {
	if err := installPrograms(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "consumers:", err)
		os.Exit(1)
	}
	os.Exit(harness.RunTests(io.Discard, func(s harness.Shared) int {
		shared = s
		return m.Run()
	}))
}

// needed are the programs that the examples need, each with the package of Debian that has it.
var needed = [][2]string{
	{"curl", "curl"}, {"python3", "python3"}, {"node", "nodejs"}, {"npm", "npm"},
	{"java", "default-jdk-headless"}, {"javac", "default-jdk-headless"}, {"keytool", "default-jdk-headless"},
}

// installPrograms installs what is missing from Debian's packages. What is there from elsewhere is as good.
func installPrograms(ctx context.Context) error {
	var packages []string
	for _, program := range needed {
		if _, err := exec.LookPath(program[0]); err != nil && !slices.Contains(packages, program[1]) {
			packages = append(packages, program[1])
		}
	}
	switch {
	case len(packages) == 0:
		return nil
	case os.Getuid() != 0:
		return errors.New("install " + strings.Join(packages, ", ") + ", or run this as root on Debian, which installs them")
	}
	return localcluster.InstallPackages(ctx, os.Stderr, packages...)
}
