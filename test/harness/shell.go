package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// Shell runs commands of the documents as their reader would, in a clone of this repository.
type Shell struct {
	Dir string
	env []string
}

// NewShell makes the clone in a folder. kubectl is in another, as localcluster builds it.
func NewShell(dir, kubeconfig, programs string) (*Shell, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	// What commands change is copied, the rest is linked.
	entries, err := os.ReadDir(Path())
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		var err error
		switch name := entry.Name(); name {
		case "config":
			err = os.CopyFS(filepath.Join(dir, name), os.DirFS(Path(name)))
		case "dist", "bin", ".git":
		default:
			err = os.Symlink(Path(name), filepath.Join(dir, name))
		}
		if err != nil {
			return nil, err
		}
	}
	s := &Shell{Dir: dir}
	for _, variable := range os.Environ() {
		// A make around this test must not tell the ones inside what to do.
		if !strings.HasPrefix(variable, "MAKE") && !strings.HasPrefix(variable, "MFLAGS=") {
			s.env = append(s.env, variable)
		}
	}
	s.env = append(s.env, "KUBECONFIG="+kubeconfig, "KUBECACHEDIR="+filepath.Join(dir, ".kubectl"), "KUBERC=off",
		"GOBIN="+filepath.Join(dir, "bin"),
		"PATH="+strings.Join([]string{filepath.Join(dir, "bin"), programs, os.Getenv("PATH")}, string(os.PathListSeparator)))
	return s, nil
}

// Set sets a variable of the environment.
func (s *Shell) Set(name, value string) { s.env = append(s.env, name+"="+value) }

// UseStandIn does what the documents ask the reader for: it puts the tenant's address into the credentials.
func (s *Shell) UseStandIn(standIn *sfmctest.Server) error {
	_, address, err := SamplePackage()
	for _, name := range []string{sampleCredentials, "config/samples/gitops/platform/credentials.yaml"} {
		text, readErr := os.ReadFile(Path(name))
		edited := strings.Replace(string(text), address, standIn.URL(), 1)
		err = errors.Join(err, readErr, os.WriteFile(filepath.Join(s.Dir, name), []byte(edited), 0o600)) //nolint:gosec // a file of the copy
	}
	return err
}

const sampleCredentials = "config/samples/credentials.yaml" //nolint:gosec // a file with invented ones

// SamplePackage is the package at Marketing Cloud that the samples are for, and its address in them.
func SamplePackage() (pkg sfmctest.Package, address string, err error) {
	var secret corev1.Secret
	text, err := os.ReadFile(Path(sampleCredentials))
	if err = errors.Join(err, yaml.Unmarshal(text, &secret)); err != nil {
		return sfmctest.Package{}, "", fmt.Errorf("%s: %w", sampleCredentials, err)
	}
	return sfmctest.Package{
		ClientID:     secret.StringData["client_id"],
		ClientSecret: secret.StringData["client_secret"],
		AccountID:    "510000001",
		AccountIDs:   []string{"510004567", "510009999"},
		Scopes:       []string{"journeys_read", "data_extensions_write"},
	}, secret.StringData["auth_base_uri"], nil
}

// Run runs commands and returns what they print on stdout.
func (s *Shell) Run(ctx context.Context, commands string) (string, error) {
	bash := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands) //nolint:gosec // what the documents say
	bash.Dir, bash.Env = s.Dir, s.env
	var stderr strings.Builder
	bash.Stderr = &stderr
	out, err := bash.Output()
	if err != nil {
		return string(out), fmt.Errorf("%w:\n%s\n%s%s", err, commands, out, stderr.String())
	}
	return string(out), nil
}
