package e2e

import (
	"bytes"
	"encoding/json"
	"net"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// standIn is the stand-in for Marketing Cloud, in a pod. Clients know it by the pod's address: that needs neither DNS nor
// a Service.
type standIn struct {
	w    *world
	host string
	ca   []byte
}

// standInPort is one that config/network-policy lets the operator call.
const standInPort = "8443"

func (w *world) startStandIn() {
	w.t.Helper()
	made := pod(toolsNamespace, "stand-in")
	serves := container("stand-in", "/sfmc-standin", "--listen=:"+standInPort, "--host=$(POD_IP)",
		"--expires-in="+reportedLife.String(), "--life="+realLife.String())
	serves.Env = []corev1.EnvVar{{Name: "POD_IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}}
	made.Spec.Containers = []corev1.Container{serves}
	w.startTool(made)
	w.Expect(w.api.Get(w.t.Context(), client.ObjectKeyFromObject(made), made)).To(Succeed())
	w.standIn = &standIn{w: w, host: net.JoinHostPort(made.Status.PodIP, standInPort)}
	w.Eventually(func() (err error) {
		w.standIn.ca, err = w.standIn.control("GET", "ca", nil)
		return err
	}).WithTimeout(patience).Should(Succeed())
	w.standIn.must("PUT", "packages", harness.Package())
}

// URL is its Authentication Base URI.
func (s *standIn) URL() string { return "https://" + s.host + "/" }

// control calls its control API.
func (s *standIn) control(verb, path string, body []byte) ([]byte, error) {
	return s.w.proxy(verb, toolsNamespace, "https:stand-in:"+standInPort).Suffix("_control/" + path).Body(bytes.NewReader(body)).DoRaw(s.w.t.Context())
}

func (s *standIn) must(verb, path string, value any) []byte {
	s.w.t.Helper()
	body, err := json.Marshal(value)
	s.w.Expect(err).NotTo(HaveOccurred())
	answer, err := s.control(verb, path, body)
	s.w.Expect(err).NotTo(HaveOccurred(), "%s %s", verb, path)
	return answer
}

// failAlways answers every token request with an internal error until succeedAgain.
func (s *standIn) failAlways() {
	s.w.t.Helper()
	s.must("POST", "faults", sfmctest.Fault{Refusal: sfmctest.InternalError, Times: sfmctest.Forever})
}

func (s *standIn) succeedAgain() { s.w.t.Helper(); s.must("DELETE", "faults", nil) }

// requests is how many token requests arrived.
func (s *standIn) requests() int {
	s.w.t.Helper()
	var counts struct {
		Requests int `json:"requests"`
	}
	s.w.Expect(json.Unmarshal(s.must("GET", "counts", nil), &counts)).To(Succeed())
	return counts.Requests
}

// What it takes for a pod to know the stand-in.
const standInCA = "/stand-in/ca.crt"

func (s *standIn) configMap(namespace string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "stand-in"},
		Data:       map[string]string{"host": s.host, "ca.crt": string(s.ca)},
	}
}

func standInVolume() corev1.Volume {
	return corev1.Volume{Name: "stand-in", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "stand-in"},
	}}}
}

func standInMount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: "stand-in", MountPath: "/stand-in", ReadOnly: true}
}
