package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

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
// log past the manager's logger goes to globalLog. The environment variable API_SERVER_FLAGS has more flags of
// kube-apiserver.
func RunTests(globalLog io.Writer, run func(Shared) int) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "start the control plane:", err)
		return 1
	}
	ctrl.SetLogger(zap.New(zap.Level(zapcore.DebugLevel), zap.WriteTo(globalLog)))
	flags := os.Getenv("API_SERVER_FLAGS")
	shared, err := Start(ctx, localcluster.Options{Out: os.Stderr, APIServerFlags: strings.Fields(flags)})
	if err != nil {
		return fail(err)
	}
	if strings.Contains(flags, "OwnerReferencesPermissionEnforcement") {
		if _, err := shared.Cluster.Kubectl(ctx, "apply", "-k", Path("config", "owner-references")); err != nil {
			return fail(errors.Join(err, shared.Cluster.Stop()))
		}
	}
	defer shared.Cluster.Stop() //nolint:errcheck // the tests have their verdict by then
	defer RemoveProgram()
	return run(shared)
}

// Start starts a control plane for tests.
func Start(ctx context.Context, options localcluster.Options) (Shared, error) {
	cluster, err := StartCluster(ctx, options)
	if err != nil {
		return Shared{}, err
	}
	admin, err := client.NewWithWatch(cluster.Config(), client.Options{Scheme: Scheme})
	if err != nil {
		return Shared{}, errors.Join(err, cluster.Stop())
	}
	operator, err := cluster.ServiceAccountConfig(ctx, SystemNamespace, ServiceAccount)
	if err != nil {
		return Shared{}, errors.Join(err, cluster.Stop())
	}
	return Shared{cluster, admin, operator}, nil
}
