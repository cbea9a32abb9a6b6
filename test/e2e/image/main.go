// Command image writes the image that pods of the end-to-end test run from, to .cache/e2e/image.tar: the stand-in for
// Marketing Cloud, consumers, and what kills the operator.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// programs are what the image has in its root folder.
var programs = []string{
	"github.com/sfmctoken/sfmctoken-operator/hack/sfmc-standin",
	"github.com/sfmctoken/sfmctoken-operator/test/e2e/consumer",
	"github.com/sfmctoken/sfmctoken-operator/test/e2e/killer",
}

func main() {
	file := harness.Path(".cache", "e2e", "image.tar")
	if err := write(context.Background(), file); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
	fmt.Println(file)
}

func write(ctx context.Context, file string) error {
	dir, err := os.MkdirTemp("", "sfmctoken-e2e-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image := localcluster.Image{Name: "docker.io/library/sfmctoken-e2e:latest", Files: map[string]string{}, User: "65532:65532"}
	for _, program := range programs {
		name := filepath.Base(program)
		image.Files[name] = filepath.Join(dir, name)
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", image.Files[name], program) //nolint:gosec // go itself
		build.Dir = harness.Path("test")
		build.Env = append(build.Environ(), "CGO_ENABLED=0", "GOOS=linux")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", program, err, out)
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	return image.WriteFile(file)
}
