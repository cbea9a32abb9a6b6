package localcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The network of a node, which nothing but the node is in; see Isolate.
const (
	nodeName = "node"
	// NodeAddress is where pods reach what runs beside the node, and ask for names.
	NodeAddress = "10.0.1.1"
	podRange    = "10.0.1.0/24"
	bridgeName  = "pods"
	// kubernetesAddress is the first of serviceRange, and what pods take for the
	// API server's. There is no proxy that would lead them there: the API server
	// listens on this very address and port.
	kubernetesAddress = "10.0.0.1"
	kubernetesPort    = "443"
	pauseImage        = "docker.io/local/pause:1"
)

// node is the programs of a node. Containers end with the namespaces of Isolate.
type node struct {
	dir                            string
	containerd, scheduler, kubelet *process
}

func (n *node) file(name string) string { return filepath.Join(n.dir, name) }

func (n *node) socket() string { return n.file("containerd.sock") }

// startNode starts a node and returns once pods can run on it.
func (c *Cluster) startNode(ctx context.Context) error {
	c.node = &node{dir: c.file("node")}
	if err := c.node.write(c.file); err != nil {
		return err
	}
	if err := c.startContainerd(ctx); err != nil {
		return err
	}
	if err := c.importPause(ctx); err != nil {
		return err
	}
	if err := c.startScheduler(); err != nil {
		return err
	}
	return c.startKubelet(ctx)
}

// connectNode makes the bridge that pods are connected to, and the addresses that
// they know. It comes before the API server, which listens on one of them.
func connectNode() error {
	for _, args := range [][]string{
		{"link", "add", bridgeName, "type", "bridge"},
		{"address", "add", NodeAddress + "/24", "dev", bridgeName},
		{"link", "set", bridgeName, "up"},
		{"address", "add", kubernetesAddress + "/32", "dev", "lo"},
	} {
		if err := command("ip", args...); err != nil {
			return err
		}
	}
	return nil
}

// write makes the node's folder and the files that its programs read. The folder
// is in memory, which is fast, and gone with the namespaces.
func (n *node) write(clusterFile func(string) string) error {
	if err := mountNodeDir(n.dir); err != nil {
		return err
	}
	if err := os.Mkdir(n.file("cni"), 0o700); err != nil {
		return err
	}
	if err := makeCgroup(isolated); err != nil {
		return err
	}
	return writeFiles(map[string][]byte{
		n.file("cni/pods.conflist"): fmt.Appendf(nil, cniConfig, bridgeName, podRange, n.file("addresses")),
		n.file("containerd.toml"):   fmt.Appendf(nil, containerdConfig, n.file("images"), n.file("state"), n.socket(), n.file("opt"), pauseImage, cniPlugins, n.file("cni"), runcProgram),
		n.file("resolv.conf"):       []byte("nameserver " + NodeAddress + "\n"),
		n.file("kubelet.yaml"): fmt.Appendf(nil, kubeletConfig, NodeAddress, clusterFile("ca.crt"), clusterFile("serving.crt"), clusterFile("serving.key"),
			n.socket(), "/"+isolated, n.file("resolv.conf"), n.file("pod-logs"), n.file("volume-plugins")),
	})
}

// cniConfig gives each pod an address on the bridge, and the bridge as its way to
// all other addresses of the node.
const cniConfig = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge",
    "bridge": %q,
    "isGateway": true,
    "ipam": {
      "type": "host-local",
      "ranges": [[{"subnet": %q}]],
      "routes": [{"dst": "0.0.0.0/0"}],
      "dataDir": %q
    }
  }]
}
`

// containerdConfig takes the snapshotter that works on every file system, and
// does not ask for scores that protect from a lack of memory, which not every
// root may give.
const containerdConfig = `version = 3
root = %q
state = %q
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = %q
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [%q]
    conf_dir = %q
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = %q
`

// kubeletConfig leaves every default that decides how soon pods see a change of a
// Secret. It reserves nothing, since the machine is shared, and accepts machines
// that a real node would not be.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %q
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: %q}
authorization: {mode: Webhook}
tlsCertFile: %q
tlsPrivateKeyFile: %q
containerRuntimeEndpoint: "unix://%s"
cgroupDriver: cgroupfs
cgroupRoot: %q
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
resolvConf: %q
podLogsDir: %q
volumePluginDir: %q
`

func (c *Cluster) startContainerd(ctx context.Context) error {
	var err error
	if c.node.containerd, err = c.run("containerd", "--config="+c.node.file("containerd.toml"), "--log-level=info"); err != nil {
		return err
	}
	return c.waitFor(ctx, c.node.containerd, func(ctx context.Context) error {
		_, err := c.ctr(ctx, "version")
		return err
	})
}

func (c *Cluster) importPause(ctx context.Context) error {
	image := Image{Name: pauseImage, Files: map[string]string{"pause": c.program("pause")}, Entrypoint: []string{"/pause"}, User: "65535:65535"}
	archive := c.node.file("pause.tar")
	if err := image.WriteFile(archive); err != nil {
		return err
	}
	return c.ImportImage(ctx, archive)
}

func (c *Cluster) startScheduler() error {
	kubeconfig := c.file("scheduler.kubeconfig")
	var err error
	c.node.scheduler, err = c.run("kube-scheduler",
		"--kubeconfig="+kubeconfig,
		"--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig,
		"--bind-address="+loopback,
		"--secure-port="+c.schedulePort,
		"--tls-cert-file="+c.file("serving.crt"),
		"--tls-private-key-file="+c.file("serving.key"),
		"--leader-elect=false",
	)
	return err // pods are the proof that it works
}

func (c *Cluster) startKubelet(ctx context.Context) error {
	started := metav1.Now().Rfc3339Copy()
	var err error
	c.node.kubelet, err = c.run("kubelet",
		"--config="+c.node.file("kubelet.yaml"),
		"--kubeconfig="+c.file("kubelet.kubeconfig"),
		"--root-dir="+c.node.file("kubelet"),
		"--cert-dir="+c.node.file("kubelet"),
		"--hostname-override="+nodeName,
		"--node-ip="+NodeAddress,
	)
	if err != nil {
		return err
	}
	return c.waitFor(ctx, c.node.kubelet, func(ctx context.Context) error {
		found, err := c.client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range found.Status.Conditions {
			if condition.Type != corev1.NodeReady {
				continue
			}
			// What a kubelet said before it was restarted doesn't count.
			if condition.Status == corev1.ConditionTrue && !condition.LastHeartbeatTime.Before(&started) {
				return nil
			}
			return errors.New(condition.Message)
		}
		return errors.New("it has said nothing of itself yet")
	})
}

// StopKubelet ends kubelet as a crash would. Containers go on, as on any node.
func (c *Cluster) StopKubelet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.node == nil {
		return
	}
	c.node.kubelet.stop(atOnce)
	c.node.kubelet = nil
}

// StartKubelet starts kubelet again after StopKubelet, and returns once it reports
// that the node is ready.
func (c *Cluster) StartKubelet(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stopped:
		return errors.New("the cluster is stopped: start a new one")
	case c.node == nil:
		return errors.New("the cluster has no node: start it with Options.Node")
	case c.node.kubelet != nil:
		return errors.New("kubelet is running: call StopKubelet first")
	}
	return c.startKubelet(ctx)
}

// ImportImage gives the node the images of a tar file: of Image.WriteFile, or as
// `docker save` and buildah write it.
func (c *Cluster) ImportImage(ctx context.Context, archive string) error {
	out, err := c.ctr(ctx, "--namespace=k8s.io", "images", "import", "--local", "--snapshotter=native", archive)
	if err != nil {
		return fmt.Errorf("importing the image %s: %w: %s", archive, err, out)
	}
	return nil
}

// ContainerdSocket returns the address under which ctr reaches the node's
// containerd, from within its namespaces.
func (c *Cluster) ContainerdSocket() string { return c.node.socket() }

func (c *Cluster) ctr(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, c.program("ctr"), append([]string{"--address=" + c.node.socket()}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// stop ends the programs, and frees the folder to be removed.
func (n *node) stop() error {
	if n == nil {
		return nil
	}
	n.kubelet.stop(5 * time.Second)
	n.scheduler.stop(5 * time.Second)
	n.containerd.stop(5 * time.Second)
	return unmountNodeDir(n.dir)
}

// writeNodeIdentities makes what the API server and the programs of a node need
// to know each other.
func (c *Cluster) writeNodeIdentities(ca *authority) error {
	for file, subject := range map[string][]string{
		"scheduler.kubeconfig": {"system:kube-scheduler"},
		"kubelet.kubeconfig":   {"system:node:" + nodeName, "system:nodes"},
	} {
		client, err := ca.client(subject[0], subject[1:]...)
		if err != nil {
			return err
		}
		if err := WriteKubeconfig(c.configFor(ca.pem, client), c.file(file)); err != nil {
			return err
		}
	}
	toKubelet, err := ca.client("kube-apiserver-kubelet-client", "system:masters")
	if err != nil {
		return err
	}
	return writeFiles(map[string][]byte{
		c.file("kubelet-client.crt"): toKubelet.cert,
		c.file("kubelet-client.key"): toKubelet.key,
	})
}

// nodeAPIServerFlags let the API server reach kubelet.
func (c *Cluster) nodeAPIServerFlags() []string {
	return []string{
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-certificate-authority=" + c.file("ca.crt"),
		"--kubelet-client-certificate=" + c.file("kubelet-client.crt"),
		"--kubelet-client-key=" + c.file("kubelet-client.key"),
	}
}

func servingAddresses() []net.IP {
	return []net.IP{net.ParseIP(loopback), net.ParseIP(kubernetesAddress), net.ParseIP(NodeAddress)}
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil { //nolint:noctx // done in milliseconds
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
