package localcluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Config returns a client configuration of a cluster admin, without a client
// side rate limit. Callers own what they get.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Kubeconfig returns the path of a cluster admin's kubeconfig file.
func (c *Cluster) Kubeconfig() string { return c.file("kubeconfig") }

// AssetsDir returns the folder of the programs in use, kubectl among them.
func (c *Cluster) AssetsDir() string { return c.options.AssetsDir }

// LogDir returns the folder of the programs' log files.
func (c *Cluster) LogDir() string { return c.options.LogDir }

// Entrance returns the command that runs another in the namespaces of a cluster
// with a node, which is how a person reaches it.
func (c *Cluster) Entrance() string { return "nsenter --target=" + entrance + " --mount --net --pid" }

// Kubectl runs kubectl as cluster admin and returns what it printed on stdout.
// The error holds what it printed on stderr.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.KubectlInput(ctx, nil, args...)
}

// KubectlInput is Kubectl with a standard input, for manifests given as "-f -".
func (c *Cluster) KubectlInput(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	// The flags keep a person's own settings out, and their home folder clean.
	flags := []string{"--kubeconfig=" + c.Kubeconfig(), "--cache-dir=" + c.file("kubectl-cache")}
	cmd := exec.CommandContext(ctx, c.program("kubectl"), append(flags, args...)...)
	cmd.Env = append(os.Environ(), "KUBERC=off")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// ServiceAccountConfig returns a client configuration that authenticates as the
// ServiceAccount, which must exist, with a token that is good for a day.
func (c *Cluster) ServiceAccountConfig(ctx context.Context, namespace, name string) (*rest.Config, error) {
	day := int64(24 * 60 * 60)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &day}}
	answer, err := c.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("requesting a token of ServiceAccount %s/%s: %w", namespace, name, err)
	}
	config := rest.AnonymousClientConfig(c.config)
	config.BearerToken = answer.Status.Token
	return config, nil
}

// WriteKubeconfig writes the client configuration to a kubeconfig file that only
// its owner can read.
func WriteKubeconfig(config *rest.Config, path string) error {
	const name = "localcluster"
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters[name] = &clientcmdapi.Cluster{
		Server:                   config.Host,
		CertificateAuthority:     config.CAFile,
		CertificateAuthorityData: config.CAData,
	}
	kubeconfig.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificate:     config.CertFile,
		ClientCertificateData: config.CertData,
		ClientKey:             config.KeyFile,
		ClientKeyData:         config.KeyData,
		Token:                 config.BearerToken,
		TokenFile:             config.BearerTokenFile,
	}
	kubeconfig.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	kubeconfig.CurrentContext = name
	return clientcmd.WriteToFile(*kubeconfig, path)
}
