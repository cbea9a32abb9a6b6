package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const (
	namespace = "marketing"
	// tokenLife is short, so that a refresh is seen soon. The stand-in refuses tokens from their reported expiry on;
	// Salesforce gives them two minutes more.
	tokenLife = 30 * time.Second
)

func (d *demo) startControlPlane(ctx context.Context) error {
	d.say(`The first time, etcd, kube-apiserver, kube-controller-manager and kubectl are built from source, which takes
minutes; they are kept in .cache/localcluster. All listen on 127.0.0.1 only. The kubectl below is theirs; your own
kubeconfig is neither read nor written.
`)
	var err error
	if d.dir, err = os.MkdirTemp("", "sfmctoken-demo-"); err != nil {
		return err
	}
	d.onCleanUp(func() error { return os.RemoveAll(d.dir) })

	// Once it runs, the control plane is ended by cleanUp alone: the operator goes first, and gives its Lease back.
	clusterCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	detach := context.AfterFunc(ctx, cancel)
	d.cluster, err = localcluster.Start(clusterCtx, localcluster.Options{
		Out:  indented{d},
		CRDs: []string{filepath.Join("config", "crd", "bases")},
	})
	detach()
	if err != nil {
		cancel()
		return err
	}
	d.onCleanUp(func() error { defer cancel(); return d.cluster.Stop() })

	if d.client, err = kubernetes.NewForConfig(d.cluster.Config()); err != nil {
		return err
	}
	d.say("")
	return d.kubectl(ctx, "apply", "--server-side", "-k", "config/default")
}

// indented shows what is written to it as part of a step. Each write is a line.
type indented struct{ *demo }

func (i indented) Write(p []byte) (int, error) {
	i.show(string(p))
	return len(p), nil
}

func (d *demo) startPrograms(ctx context.Context) error {
	if err := d.startStandIn(); err != nil {
		return err
	}
	d.say("The Pods of the Deployment just applied stay Pending, as there is no node. The operator runs as a process of this\n" +
		"machine instead, with the rights of the same ServiceAccount.\n")
	binary := filepath.Join(d.dir, "sfmctoken-operator")
	d.say("$ go build -o %s ./cmd", binary)
	if err := buildOperator(ctx, binary); err != nil {
		return err
	}
	return d.startOperator(ctx, binary)
}

func (d *demo) startStandIn() error {
	var err error
	if d.samples, err = readSamples(filepath.Join("config", "samples")); err != nil {
		return err
	}
	d.standIn, err = sfmctest.NewServer(sfmctest.Options{
		ExpiresIn: tokenLife,
		Life:      tokenLife,
		Packages:  []sfmctest.Package{d.samples.installedPackage()},
	})
	if err != nil {
		return err
	}
	d.onCleanUp(func() error { d.standIn.Close(); return nil })
	d.say("The stand-in serves the samples' package over TLS at %s. Its tokens live %s instead of\n"+
		"18 minutes, so that a refresh is seen soon.\n", d.standIn.URL(), tokenLife)
	// 0644: a certificate is public.
	return os.WriteFile(d.caFile(), d.standIn.CACert(), 0o644) //nolint:gosec // see above
}

func (d *demo) caFile() string { return filepath.Join(d.dir, "ca.crt") }

func (d *demo) startOperator(ctx context.Context, binary string) error {
	config, err := d.cluster.ServiceAccountConfig(ctx, harness.SystemNamespace, harness.ServiceAccount)
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(d.dir, "operator.kubeconfig")
	if err := localcluster.WriteKubeconfig(config, kubeconfig); err != nil {
		return err
	}
	probes, err := harness.FreeAddress()
	if err != nil {
		return err
	}
	args := []string{
		"--leader-elect",
		"--leader-election-namespace=" + harness.SystemNamespace,
		"--health-probe-bind-address=" + probes,
		"--allow-auth-host=" + d.standIn.Host(), // anything but Marketing Cloud's own hosts must be allowed by name
		"--ca-file=" + d.caFile(),
	}
	d.say("$ KUBECONFIG=%s %s \\\n    %s", kubeconfig, binary, strings.Join(args, " \\\n    "))
	d.operator, err = startOperator(binary, args, kubeconfig, filepath.Join(d.dir, "operator.log"), d.fail)
	if err != nil {
		return err
	}
	d.onCleanUp(d.operator.stop)
	url := "http://" + probes + "/readyz"
	d.say("\n$ curl --retry 60 --retry-connrefused %s", url)
	return d.showResult(awaitOK(ctx, url))
}

func (d *demo) applySamples(ctx context.Context) error {
	if err := d.kubectl(ctx, "create", "namespace", namespace); err != nil {
		return err
	}
	credentials := d.samples.credentialsFile
	d.say("The sample credentials are invented, and so is their host. Only the host is changed, to the stand-in's:\n")
	d.say("$ sed 's|%s|%s|' \\\n    %s | kubectl -n %s apply -f -", d.samples.authBaseURI(), d.standIn.URL(), credentials, namespace)
	manifest := strings.Replace(d.samples.credentialsManifest, d.samples.authBaseURI(), d.standIn.URL(), 1)
	if err := d.showResult(d.cluster.KubectlInput(ctx, strings.NewReader(manifest), "-n", namespace, "apply", "-f", "-")); err != nil {
		return err
	}
	d.say("The other samples are applied as they are. This one is watched below:\n")
	d.say("$ cat %s\n%s", d.samples.watchedFile, d.samples.watchedManifest)
	d.say("")
	apply := []string{"-n", namespace, "apply"}
	for _, file := range d.samples.otherFiles {
		apply = append(apply, "-f", file)
	}
	if err := d.kubectl(ctx, apply...); err != nil {
		return err
	}
	d.say("The consumer's Pod stays Pending, as there is no node. Step 5 makes the call that it would make.")
	return nil
}

func (d *demo) awaitTokens(ctx context.Context) error {
	if err := d.kubectl(ctx, "-n", namespace, "wait", "--for=condition=Ready", "sfmctokens", "--all", "--timeout=60s"); err != nil {
		_ = d.kubectl(ctx, "-n", namespace, "events") // they say why
		return err
	}
	if _, err := d.readTarget(ctx); err != nil {
		return err
	}
	if err := d.kubectl(ctx, "-n", namespace, "get", "sfmctokens"); err != nil {
		return err
	}
	if err := d.kubectl(ctx, "-n", namespace, "describe", "secret", d.samples.watched.TargetSecretName()); err != nil {
		return err
	}
	return d.showEvents(ctx)
}

// showEvents waits for the first event: they are sent beside the work, not before it goes on.
func (d *demo) showEvents(ctx context.Context) error {
	args := []string{"-n", namespace, "events", "--for=sfmctoken/" + d.samples.watched.Name}
	d.say("$ kubectl %s", strings.Join(args, " "))
	var printed string
	err := poll(ctx, 15*time.Second, func() error {
		var err error
		if printed, err = d.cluster.Kubectl(ctx, args...); err == nil && !strings.Contains(printed, "TokenValid") {
			err = fmt.Errorf("no event TokenValid: %s", printed)
		}
		return err
	})
	return d.showResult(printed, err)
}

func (d *demo) removeAll(ctx context.Context) error {
	token, secret := d.samples.watched.Name, d.samples.watched.TargetSecretName()
	for _, args := range [][]string{
		{"delete", "sfmctoken", token},
		{"wait", "--for=delete", "secret/" + secret, "--timeout=60s"}, // owned by it, so the garbage collector takes it
		{"get", "secrets"},
	} {
		if err := d.kubectl(ctx, append([]string{"-n", namespace}, args...)...); err != nil {
			return err
		}
	}
	d.say("\n$ kill -TERM %d # the operator", d.operator.pid())
	if err := d.operator.stop(); err != nil {
		return err
	}
	d.say("It ended with exit code 0. Now the stand-in, the control plane and the temporary files go.")
	return d.cleanUp()
}
