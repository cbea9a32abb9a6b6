// Package localcluster runs a real Kubernetes control plane on loopback
// addresses, for the tests, the demo and the benchmark: etcd, kube-apiserver and
// kube-controller-manager, so that admission, RBAC, garbage collection, namespace
// deletion and ServiceAccount tokens behave as in any cluster. Without
// Options.Node there is no node and no scheduler: pods are admitted but never run.
package localcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Options change how a cluster is started. Its zero value is a good default.
type Options struct {
	// Dir holds the data, keys and kubeconfigs, and is left in place by Stop.
	// By default it is a temporary folder, which Stop removes.
	Dir string
	// LogDir receives one log file for each program. By default it is in Dir.
	LogDir string
	// Out is told each step in one line. By default nobody is.
	Out io.Writer
	// AssetsDir holds the programs. By default it is what Binaries returns, or
	// NodeBinaries.
	AssetsDir string
	// Node adds a node that runs pods: kube-scheduler, kubelet and containerd.
	// The program must have called Isolate, which takes root on Linux, and can
	// have one such cluster in its life. Pods have addresses of their own, reach
	// each other, the API server and what listens on NodeAddress, and nothing
	// outside. There is no kube-proxy and no registry: Services other than kubernetes
	// lead nowhere, and images come from ImportImage. Names are asked for at
	// NodeAddress, where nobody answers unless the program does.
	Node bool
	// CRDs are files or folders of manifests that are applied before the
	// controller manager starts. The garbage collector looks for new kinds only
	// every 30 seconds: it knows these from the first moment.
	CRDs []string
	// APIServerFlags are given to kube-apiserver after all others, so they win.
	APIServerFlags []string
}

// Each program starts in a few seconds; a minute allows for a loaded machine.
const startTimeout = time.Minute

// atOnce is the API server's grace period: all it keeps is in etcd, and with more
// time it would go on serving open watches for up to a minute.
const atOnce = 0

// Cluster is a running control plane. Its methods may be called concurrently.
type Cluster struct {
	options    Options
	removeDir  bool
	etcdPort   string
	etcdPeer   string
	host, port string // where the API server listens
	managePort string

	schedulePort string
	config       *rest.Config
	client       *kubernetes.Clientset

	mu                                 sync.Mutex
	stopped                            bool
	etcd, apiServer, controllerManager *process
	node                               *node
}

// Start starts a cluster and returns once all of it serves. The cluster is
// stopped by Stop, or when ctx ends.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	c, err := prepare(ctx, options)
	if err != nil {
		return nil, err
	}
	started := time.Now()
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	c.say("control plane ready at %s after %s", c.config.Host, time.Since(started).Round(100*time.Millisecond))
	context.AfterFunc(ctx, func() { _ = c.Stop() })
	return c, nil
}

func prepare(ctx context.Context, options Options) (_ *Cluster, err error) {
	c := &Cluster{options: options}
	needed, build := programs, Binaries
	if options.Node {
		if isolated == "" {
			return nil, errors.New("a node needs namespaces of its own: call localcluster.Isolate at the beginning of the program")
		}
		needed, build = slices.Concat(programs, nodePrograms), NodeBinaries
	}
	if c.options.AssetsDir == "" {
		if c.options.AssetsDir, err = build(ctx); err != nil {
			return nil, err
		}
	}
	if missing := missingIn(c.options.AssetsDir, needed); len(missing) > 0 {
		return nil, fmt.Errorf("%s lacks %v: put them there, or leave AssetsDir empty to have all built from source", c.options.AssetsDir, missing)
	}
	ports, err := freePorts(5)
	if err != nil {
		return nil, err
	}
	c.etcdPort, c.etcdPeer, c.port, c.managePort, c.schedulePort = ports[0], ports[1], ports[2], ports[3], ports[4]
	c.host = loopback
	if options.Node {
		c.host, c.port = kubernetesAddress, kubernetesPort
	}

	if c.options.Dir == "" {
		if c.options.Dir, err = os.MkdirTemp("", "localcluster-"); err != nil {
			return nil, err
		}
		c.removeDir = true
	}
	if c.options.LogDir == "" {
		c.options.LogDir = filepath.Join(c.options.Dir, "logs")
	}
	if err := c.writeIdentities(); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.startEtcd(ctx); err != nil {
		return err
	}
	if c.options.Node {
		if err := connectNode(); err != nil {
			return err
		}
	}
	if err := c.startAPIServer(ctx); err != nil {
		return err
	}
	for _, path := range c.options.CRDs {
		c.say("applying %s", path)
		if _, err := c.Kubectl(ctx, "apply", "--server-side", "-f", path); err != nil {
			return err
		}
		if _, err := c.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=30s", "-f", path); err != nil {
			return err
		}
	}
	if err := c.startControllerManager(ctx); err != nil || !c.options.Node {
		return err
	}
	return c.startNode(ctx)
}

// StopAPIServer ends the API server as a crash would, with all connections, and
// returns once it is gone. Everything else keeps running.
func (c *Cluster) StopAPIServer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apiServer.stop(atOnce)
	c.apiServer = nil
}

// StartAPIServer starts the API server again after StopAPIServer, at the same
// address and with the same data, and returns once it serves.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stopped:
		return errors.New("the cluster is stopped: start a new one")
	case c.apiServer != nil:
		return errors.New("the API server is running: call StopAPIServer first")
	}
	return c.startAPIServer(ctx)
}

// APIServerPID returns the API server's process id, or 0 while it is stopped.
func (c *Cluster) APIServerPID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.apiServer == nil {
		return 0
	}
	return c.apiServer.pid
}

// Stop ends every program of the cluster, waits until they are gone and removes
// the temporary files. Calling it again does nothing.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return nil
	}
	c.stopped = true
	// In this order none of them misses what it depends on.
	err := c.node.stop()
	c.controllerManager.stop(5 * time.Second)
	c.apiServer.stop(atOnce)
	c.etcd.stop(5 * time.Second)
	if c.removeDir {
		err = errors.Join(err, os.RemoveAll(c.options.Dir))
	}
	return err
}

func (c *Cluster) say(format string, args ...any) {
	if c.options.Out != nil {
		fmt.Fprintf(c.options.Out, format+"\n", args...)
	}
}
