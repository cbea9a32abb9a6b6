package localcluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// program is built from a package. Its version stands in the go.mod of
// binaries, or of a folder below it.
type program struct{ name, pkg, module string }

// programs are what a control plane is made of.
var programs = []program{
	{name: "etcd", pkg: "go.etcd.io/etcd/server/v3"},
	{name: "kube-apiserver", pkg: "k8s.io/kubernetes/cmd/kube-apiserver"},
	{name: "kube-controller-manager", pkg: "k8s.io/kubernetes/cmd/kube-controller-manager"},
	{name: "kubectl", pkg: "k8s.io/kubernetes/cmd/kubectl"},
}

// nodePrograms are what a node needs beside them and beside nodePackages.
var nodePrograms = []program{
	{name: "kube-scheduler", pkg: "k8s.io/kubernetes/cmd/kube-scheduler"},
	{name: "kubelet", pkg: "k8s.io/kubernetes/cmd/kubelet"},
	{name: "containerd", pkg: "github.com/containerd/containerd/v2/cmd/containerd", module: "containerd"},
	{name: "containerd-shim-runc-v2", pkg: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", module: "containerd"},
	{name: "ctr", pkg: "github.com/containerd/containerd/v2/cmd/ctr", module: "containerd"},
	{name: "pause", pkg: "./cmd/pause", module: ".."},
}

// Binaries returns a folder that holds etcd, kube-apiserver,
// kube-controller-manager and kubectl. It is $KUBEBUILDER_ASSETS if that is set;
// otherwise the programs are built from source, once for each version, and kept
// under .cache/localcluster of the repository that the working directory is in.
// The first build takes minutes and tells its progress on stderr. Concurrent
// callers wait for each other.
func Binaries(ctx context.Context) (string, error) { return binaries(ctx, programs) }

// NodeBinaries is Binaries with the programs of a node, and installs the packages
// that a node needs.
func NodeBinaries(ctx context.Context) (string, error) {
	if err := InstallPackages(ctx, os.Stderr, nodePackages...); err != nil {
		return "", err
	}
	return binaries(ctx, slices.Concat(programs, nodePrograms))
}

func binaries(ctx context.Context, programs []program) (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		if missing := missingIn(dir, programs); len(missing) > 0 {
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
	return b.dir, b.buildMissing(ctx, programs, os.Stderr)
}

func missingIn(dir string, programs []program) []string {
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
