package e2e

import (
	"encoding/json"
	"fmt"
	"time"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sfmctoken/sfmctoken-operator/test/e2e/totals"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// consumer is a container that calls Marketing Cloud for one business unit.
type consumer struct {
	pod  string
	port int
}

// tokenName names the container and the SFMCToken, and so the Secret, of a business unit.
func tokenName(account string) string { return "unit-" + account }

// startConsumers makes the objects that a person writes, and pods for each business unit alone and for both together.
func (w *world) startConsumers() []consumer {
	w.t.Helper()
	w.create(w.standIn.configMap(namespace), harness.CredentialsSecret(namespace, "sfmc-package", w.standIn, harness.Package()))
	w.kubectl("-n", namespace, "apply", "-f", harness.Path("config", "samples", "sfmctoken_full.yaml"))
	w.startSampleConsumer()
	for _, account := range accounts {
		w.create(harness.Token(namespace, tokenName(account), "sfmc-package", account))
	}
	consumers := w.startConsumer("both-units", accounts...)
	for _, account := range accounts {
		for i := range 3 {
			consumers = append(consumers, w.startConsumer(fmt.Sprintf("%s-%d", tokenName(account), i), account)...)
		}
	}
	w.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pods", "--all", "--timeout="+patience.String())
	return consumers
}

// startConsumer makes a pod with one container for each business unit, each with its own Secret.
func (w *world) startConsumer(name string, accounts ...string) []consumer {
	w.t.Helper()
	made := pod(namespace, name)
	made.Spec.Volumes = []corev1.Volume{standInVolume()}
	var consumers []consumer
	for i, account := range accounts {
		c := consumer{pod: name, port: 8080 + i}
		consumers = append(consumers, c)
		made.Spec.Volumes = append(made.Spec.Volumes, corev1.Volume{Name: account, VolumeSource: corev1.VolumeSource{
			Secret: &corev1.SecretVolumeSource{SecretName: tokenName(account), DefaultMode: ptr.To[int32](0o440)},
		}})
		calls := container(tokenName(account), "/consumer", "--account-id="+account, "--ca-file="+standInCA, fmt.Sprintf("--listen=:%d", c.port))
		calls.VolumeMounts = []corev1.VolumeMount{{Name: account, MountPath: "/sfmc", ReadOnly: true}, standInMount()}
		made.Spec.Containers = append(made.Spec.Containers, calls)
	}
	w.create(made)
	return consumers
}

// totals asks a consumer what it counted. Its times are given as this program's clock would have shown them.
func (w *world) totals(c consumer) (totals.Totals, error) {
	asked := time.Now()
	raw, err := w.proxy("GET", namespace, fmt.Sprintf("%s:%d", c.pod, c.port)).DoRaw(w.t.Context())
	if err != nil {
		return totals.Totals{}, err
	}
	answered := time.Now()
	var got totals.Totals
	if err := json.Unmarshal(raw, &got); err != nil {
		return got, err
	}
	ahead := got.Now.Sub(asked.Add(answered.Sub(asked) / 2))
	for i := range got.Seen {
		got.Seen[i].At = got.Seen[i].At.Add(-ahead)
	}
	return got, nil
}

// sampleConsumer is the consumer of config/samples.
func (c *clusterAccess) sampleConsumer() *appsv1.Deployment {
	c.t.Helper()
	sample := &appsv1.Deployment{}
	readSample(c, "consumer.yaml", sample)
	return sample
}

// startSampleConsumer runs the consumer of config/samples, which comes to trust the stand-in. On a node of its own, curl
// is that of the machine.
func (w *world) startSampleConsumer() {
	w.t.Helper()
	sample := w.sampleConsumer()
	sample.Namespace = namespace
	spec := &sample.Spec.Template.Spec
	spec.Volumes = append(spec.Volumes, standInVolume())
	calls := &spec.Containers[0]
	calls.VolumeMounts = append(calls.VolumeMounts, standInMount())
	calls.Env = append(calls.Env, corev1.EnvVar{Name: "CURL_CA_BUNDLE", Value: standInCA})
	if node != nil {
		w.importCurl(calls.Image)
	}
	w.create(sample)
}

// sampleLog is what the consumer of config/samples printed.
func (c *clusterAccess) sampleLog(namespace string) string {
	c.t.Helper()
	pods, err := c.clients.CoreV1().Pods(namespace).List(c.t.Context(), metav1.ListOptions{LabelSelector: "app=journeys-emea-consumer"})
	c.Expect(err).NotTo(HaveOccurred())
	c.Expect(pods.Items).To(HaveLen(1))
	log, err := c.clients.CoreV1().Pods(namespace).GetLogs(pods.Items[0].Name, &corev1.PodLogOptions{}).DoRaw(c.t.Context())
	c.Expect(err).NotTo(HaveOccurred())
	return string(log)
}
