// Package test shows the operator's promises against a real control plane and a stand-in for Marketing Cloud that
// speaks TLS. The operator runs as its own ServiceAccount with the role that config/ gives it.
package test

import (
	"os"
	"testing"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

var (
	cluster  *localcluster.Cluster
	admin    client.WithWatch // reads and writes as a cluster's administrator, past any cache
	operator *rest.Config     // the operator's ServiceAccount

	globalLogs = &logs{} // what libraries log past the manager's logger
)

func TestMain(m *testing.M) {
	os.Exit(harness.RunTests(globalLogs, func(shared harness.Shared) int {
		cluster, admin, operator = shared.Cluster, shared.Admin, shared.Operator
		defer os.RemoveAll(pluginDir())
		defer stopGuardedOwners()
		return m.Run()
	}))
}
