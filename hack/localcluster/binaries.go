package localcluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// programs are what a control plane is made of, by file name and package. Their
// versions stand in binaries/go.mod alone.
var programs = []struct{ name, pkg string }{
	{"etcd", "go.etcd.io/etcd/server/v3"},
	{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
	{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"},
	{"kubectl", "k8s.io/kubernetes/cmd/kubectl"},
}

// Binaries returns a folder that holds etcd, kube-apiserver,
// kube-controller-manager and kubectl. It is $KUBEBUILDER_ASSETS if that is set;
// otherwise the programs are built from source, once for each version, and kept
// under .cache/localcluster of the repository that the working directory is in.
// The first build takes minutes and tells its progress on stderr. Concurrent
// callers wait for each other.
func Binaries(ctx context.Context) (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		if missing := missingIn(dir); len(missing) > 0 {
			return "", fmt.Errorf("KUBEBUILDER_ASSETS=%s lacks %s: put them there, or unset KUBEBUILDER_ASSETS to have all built from source",
				dir, strings.Join(missing, ", "))
		}
		return filepath.Abs(dir)
	}
	module, err := findBinariesModule()
	if err != nil {
		return "", err
	}
	b, err := planBuild(ctx, module)
	if err != nil {
		return "", err
	}
	return b.dir, b.buildMissing(ctx, os.Stderr)
}

func missingIn(dir string) []string {
	var missing []string
	for _, p := range programs {
		if info, err := os.Stat(filepath.Join(dir, p.name)); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			missing = append(missing, p.name)
		}
	}
	return missing
}

// findBinariesModule looks upwards from the working directory, which finds the
// repository from its root, from a test's folder and with -trimpath alike.
func findBinariesModule() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		module := filepath.Join(dir, "hack", "localcluster", "binaries")
		if _, err := os.Stat(filepath.Join(module, "go.mod")); err == nil {
			return module, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no hack/localcluster/binaries/go.mod in or above %s: run this inside the sfmctoken-operator repository, or set KUBEBUILDER_ASSETS to a folder with the programs", start)
		}
	}
}
