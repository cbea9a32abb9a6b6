package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Shell runs commands of the documents as their reader would, in a clone of this repository.
type Shell struct {
	Dir string
	env []string
}

// NewShell makes the clone in a folder. kubectl is in another, as localcluster builds it.
func NewShell(dir, kubeconfig, programs string) (*Shell, error) {
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
