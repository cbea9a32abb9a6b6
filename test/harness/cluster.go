// Package harness has what the tests, the demo and the benchmark share: a control plane with this repository's
// manifests applied, the operator in this process, and the objects that people write.
package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
)

// The names that config/ gives to the operator.
const (
	SystemNamespace = "sfmctoken-system"
	ServiceAccount  = "sfmctoken-operator"
)

// The repository is looked for upwards from where the program began: -trimpath leaves no path of a source file in it.
var root = repository()

func repository() string {
	dir, err := os.Getwd()
	for ; err == nil && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "PROJECT")); err == nil {
			return dir
		}
	}
	panic("run this inside the sfmctoken-operator repository: no file PROJECT in or above the working directory")
}

// Path is where a file of this repository is.
func Path(elements ...string) string { return filepath.Join(append([]string{root}, elements...)...) }

// StartCluster starts a control plane and applies config/default, as people do. The Deployment stays without pods:
// there is no node.
func StartCluster(ctx context.Context, options localcluster.Options) (*localcluster.Cluster, error) {
	options.CRDs = []string{Path("config", "crd", "bases")}
	cluster, err := localcluster.Start(ctx, options)
	if err != nil {
		return nil, err
	}
	if out, err := cluster.Kubectl(ctx, "apply", "--server-side", "-k", Path("config", "default")); err != nil {
		return nil, fmt.Errorf("apply config/default: %w\n%s", err, out)
	}
	return cluster, nil
}
