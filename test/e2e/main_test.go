// Package e2e runs the operator's image on a node, installed as people install it, with consumers that read their token
// from a mounted Secret, and measures whether a call is ever made with a dead token or one of another business unit.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// cache keeps images, what builds them, and the logs of the last run.
func cache(elements ...string) string {
	return harness.Path(append([]string{".cache", "e2e"}, elements...)...)
}

func TestMain(m *testing.M) {
	if err := localcluster.Isolate(prepare); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// prepare does what needs the machine's network: the rest is isolated from it.
func prepare(ctx context.Context) error {
	if err := os.MkdirAll(cache(), 0o750); err != nil {
		return err
	}
	if _, err := localcluster.NodeBinaries(ctx); err != nil {
		return err
	}
	// curl and a shell are what the consumer in config/samples needs.
	if err := localcluster.InstallPackages(ctx, os.Stderr, "curl", "busybox-static", "ca-certificates"); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", cache("consumer"), "./e2e/consumer") //nolint:gosec // go itself
	build.Dir = harness.Path("test")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the consumer: %w\n%s", err, out)
	}
	_, err := localcluster.BuildOperatorImage(ctx, os.Stderr)
	return err
}
