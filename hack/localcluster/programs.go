package localcluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Services get addresses from here. Nothing listens on them, but for the API
// server on the first if there is a node.
const serviceRange = "10.0.0.0/24"

// writeIdentities makes the keys, certificates and kubeconfigs of a new cluster.
func (c *Cluster) writeIdentities() error {
	for _, dir := range []string{c.options.Dir, c.options.LogDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	serving, err := ca.server(
		[]string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", nodeName},
		servingAddresses())
	if err != nil {
		return err
	}
	admin, err := ca.client("localcluster-admin", "system:masters")
	if err != nil {
		return err
	}
	manager, err := ca.client("system:kube-controller-manager")
	if err != nil {
		return err
	}
	serviceAccountKey, err := newServiceAccountKey()
	if err != nil {
		return err
	}
	err = writeFiles(map[string][]byte{
		c.file("ca.crt"):             ca.pem,
		c.file("serving.crt"):        serving.cert,
		c.file("serving.key"):        serving.key,
		c.file("serviceaccount.key"): serviceAccountKey,
	})
	if err != nil {
		return err
	}

	if c.options.Node {
		if err := c.writeNodeIdentities(ca); err != nil {
			return err
		}
	}

	c.config = c.configFor(ca.pem, admin)
	if c.client, err = kubernetes.NewForConfig(c.config); err != nil {
		return err
	}
	if err := WriteKubeconfig(c.config, c.Kubeconfig()); err != nil {
		return err
	}
	return WriteKubeconfig(c.configFor(ca.pem, manager), c.file("controller-manager.kubeconfig"))
}

func (c *Cluster) configFor(ca []byte, client keyPair) *rest.Config {
	return &rest.Config{
		Host:            "https://" + net.JoinHostPort(c.host, c.port),
		TLSClientConfig: rest.TLSClientConfig{CAData: ca, CertData: client.cert, KeyData: client.key},
		// Negative means no limit: what a test measures must not be the client.
		QPS: -1,
	}
}

func (c *Cluster) startEtcd(ctx context.Context) error {
	client, peer := "http://"+net.JoinHostPort(loopback, c.etcdPort), "http://"+net.JoinHostPort(loopback, c.etcdPeer)
	var err error
	c.etcd, err = c.run("etcd",
		"--name=localcluster",
		"--data-dir="+c.file("etcd"),
		"--listen-client-urls="+client,
		"--advertise-client-urls="+client,
		"--listen-peer-urls="+peer,
		"--initial-advertise-peer-urls="+peer,
		"--initial-cluster=localcluster="+peer,
		"--unsafe-no-fsync", // the data need not survive the machine
	)
	if err != nil {
		return err
	}
	return c.waitFor(ctx, c.etcd, func(ctx context.Context) error {
		return get(ctx, client+"/readyz")
	})
}

func (c *Cluster) startAPIServer(ctx context.Context) error {
	args := []string{
		"--etcd-servers=http://" + net.JoinHostPort(loopback, c.etcdPort),
		"--bind-address=" + c.host,
		"--secure-port=" + c.port,
		"--tls-cert-file=" + c.file("serving.crt"),
		"--tls-private-key-file=" + c.file("serving.key"),
		"--client-ca-file=" + c.file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.file("serviceaccount.key"),
		"--service-account-signing-key-file=" + c.file("serviceaccount.key"),
		"--service-cluster-ip-range=" + serviceRange,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction", // beside those that are on by default
		"--allow-privileged=true",
		"--endpoint-reconciler-type=none", // it refuses to publish a loopback address
	}
	if c.options.Node {
		args = append(args, c.nodeAPIServerFlags()...)
	}
	var err error
	c.apiServer, err = c.run("kube-apiserver", append(args, c.options.APIServerFlags...)...)
	if err != nil {
		return err
	}
	return c.waitFor(ctx, c.apiServer, func(ctx context.Context) error {
		return c.client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

func (c *Cluster) startControllerManager(ctx context.Context) error {
	kubeconfig := c.file("controller-manager.kubeconfig")
	var err error
	c.controllerManager, err = c.run("kube-controller-manager",
		"--kubeconfig="+kubeconfig,
		"--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig,
		"--bind-address="+loopback,
		"--secure-port="+c.managePort,
		"--tls-cert-file="+c.file("serving.crt"),
		"--tls-private-key-file="+c.file("serving.key"),
		"--service-account-private-key-file="+c.file("serviceaccount.key"),
		"--root-ca-file="+c.file("ca.crt"),
		"--use-service-account-credentials=true",
		"--flex-volume-plugin-dir="+c.file("volume-plugins"), // by default it makes a folder under /usr
		"--leader-elect=false",
		// By default it limits itself to 20 requests a second, which would make
		// its start and every clean-up slower by seconds.
		"--kube-api-qps=1000",
		"--kube-api-burst=1000",
	)
	if err != nil {
		return err
	}
	// Its work is the best proof that it works.
	return c.waitFor(ctx, c.controllerManager, func(ctx context.Context) error {
		_, err := c.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		if err != nil {
			return err
		}
		_, err = c.client.CoreV1().ConfigMaps("default").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err
	})
}

func (c *Cluster) run(name string, args ...string) (*process, error) {
	c.say("starting %s", name)
	return startProcess(name, c.program(name), filepath.Join(c.options.LogDir, name+".log"), args)
}

func (c *Cluster) waitFor(ctx context.Context, p *process, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return p.waitReady(ctx, ready)
}

func (c *Cluster) program(name string) string { return filepath.Join(c.options.AssetsDir, name) }

func (c *Cluster) file(name string) string { return filepath.Join(c.options.Dir, name) }

func get(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return nil
}
