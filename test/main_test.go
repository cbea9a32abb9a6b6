// Package test shows the operator's promises against a real control plane and a stand-in for Marketing Cloud that
// speaks TLS. The operator runs as its own ServiceAccount with the role that config/ gives it.
package test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/zap/zapcore"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

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
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "start the control plane:", err)
		return 1
	}
	ctrl.SetLogger(zap.New(zap.Level(zapcore.DebugLevel), zap.WriteTo(globalLogs)))
	var err error
	if cluster, err = harness.StartCluster(ctx, localcluster.Options{Out: os.Stderr}); err != nil {
		return fail(err)
	}
	defer cluster.Stop() //nolint:errcheck // the tests have their verdict by then
	if admin, err = client.NewWithWatch(cluster.Config(), client.Options{Scheme: harness.Scheme}); err != nil {
		return fail(err)
	}
	if operator, err = cluster.ServiceAccountConfig(ctx, harness.SystemNamespace, harness.ServiceAccount); err != nil {
		return fail(err)
	}
	defer func() {
		if path, err := binary(); err == nil {
			_ = os.Remove(path)
		}
		_ = os.RemoveAll(pluginDir())
	}()
	return m.Run()
}
