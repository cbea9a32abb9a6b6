package harness

import (
	"context"
	"fmt"
	"io"
	"os"

	"go.uber.org/zap/zapcore"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
)

// Shared is what the tests of a package have in common.
type Shared struct {
	Cluster *localcluster.Cluster
	// Admin reads and writes as a cluster's administrator, past any cache.
	Admin client.WithWatch
	// Operator is the operator's ServiceAccount.
	Operator *rest.Config
}

// RunTests runs the tests of a package against a control plane of their own and returns the exit code. What libraries
// log past the manager's logger goes to globalLog.
func RunTests(globalLog io.Writer, run func(Shared) int) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "start the control plane:", err)
		return 1
	}
	ctrl.SetLogger(zap.New(zap.Level(zapcore.DebugLevel), zap.WriteTo(globalLog)))
	cluster, err := StartCluster(ctx, localcluster.Options{Out: os.Stderr})
	if err != nil {
		return fail(err)
	}
	defer cluster.Stop() //nolint:errcheck // the tests have their verdict by then
	admin, err := client.NewWithWatch(cluster.Config(), client.Options{Scheme: Scheme})
	if err != nil {
		return fail(err)
	}
	operator, err := cluster.ServiceAccountConfig(ctx, SystemNamespace, ServiceAccount)
	if err != nil {
		return fail(err)
	}
	defer RemoveProgram()
	return run(Shared{cluster, admin, operator})
}
