// Package e2e runs the operator's image on a node, installed as people install it: once by the commands of the README,
// and once with consumers that read their token from a mounted Secret, to measure whether a call is ever made with a dead
// token or one of another business unit.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// node is the cluster that this program runs, or nil if KUBECONFIG named one from the beginning.
var node *localcluster.Cluster

// cache keeps images, and the logs of the last run.
func cache(elements ...string) string {
	return harness.Path(append([]string{".cache", "e2e"}, elements...)...)
}

func operatorImage() string { return harness.Path(".cache", "localcluster", "sfmctoken-operator.tar") }

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	log.SetLogger(logr.Discard()) // what the client would log is in its errors
	if os.Getenv("KUBECONFIG") == "" {
		if err := startNode(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		defer node.Stop() //nolint:errcheck // the tests have their verdict by then
	}
	return m.Run()
}

// startNode starts a cluster with all images, in namespaces of this program's own, and makes it the one that KUBECONFIG
// names.
func startNode() error {
	err := localcluster.Isolate(prepare)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := os.RemoveAll(cache("logs")); err != nil {
		return err
	}
	if node, err = localcluster.Start(ctx, localcluster.Options{Node: true, Out: os.Stderr, LogDir: cache("logs")}); err != nil {
		return err
	}
	for _, archive := range []string{operatorImage(), cache("image.tar")} {
		if err := node.ImportImage(ctx, archive); err != nil {
			return err
		}
	}
	return errors.Join(
		os.Setenv("KUBECONFIG", node.Kubeconfig()),
		os.Setenv("PATH", node.AssetsDir()+string(filepath.ListSeparator)+os.Getenv("PATH")))
}

// prepare does what needs the machine's network: the rest is isolated from it.
func prepare(ctx context.Context) error {
	if _, err := localcluster.NodeBinaries(ctx); err != nil {
		return err
	}
	// curl and a shell are what the consumer in config/samples needs.
	if err := localcluster.InstallPackages(ctx, os.Stderr, "curl", "busybox-static", "ca-certificates"); err != nil {
		return err
	}
	// The rest is what the README has its reader build, and Helm.
	for _, command := range [][]string{
		{"go", "run", "-C", harness.Path("test"), "./e2e/image"},
		{"make", "--no-print-directory", "-C", harness.Path(), harness.Path(".cache", "bin", "kustomize"),
			harness.Path(".cache", "bin", "helm"), "build"},
	} {
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil { //nolint:gosec // see above
			return fmt.Errorf("%v: %w\n%s", command, err, out)
		}
	}
	_, err := localcluster.BuildOperatorImage(ctx, os.Stderr)
	return err
}
