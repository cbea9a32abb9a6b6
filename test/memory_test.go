package test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// forgery is a record that looks like one of ours, with more fields.
const forgery = `{"owner":"journeys","identity":"0123","issuedAt":"2026-01-01T00:00:00Z","seal":"4567"%s}`

// heldMB is how much memory is held in this process, of which the operator is a part.
func heldMB() float64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc) / 1e6
}

// foreignSecrets makes 600 of 0.9 MB with the operator's label, of which 400 have a record that looks like one of ours,
// and 200 without the label, but with a record of 250 kB. They go with the namespace.
func (w *world) foreignSecrets() (secrets int) {
	managed := map[string]string{"app.kubernetes.io/managed-by": "sfmctoken-operator"}
	blob := map[string][]byte{"blob": []byte(strings.Repeat("x", 900_000))}
	short := map[string][]byte{"blob": []byte(strings.Repeat("x", 650_000))}
	record := map[string]string{issued: fmt.Sprintf(forgery, "")}
	long := map[string]string{issued: fmt.Sprintf(forgery, `,"proof":"`+strings.Repeat("x", 250_000)+`"`)}
	for i := range 200 {
		for kind, secret := range map[string]*corev1.Secret{
			"labelled":   {ObjectMeta: metav1.ObjectMeta{Labels: managed}, Data: blob},
			"forged":     {ObjectMeta: metav1.ObjectMeta{Labels: managed, Annotations: record}, Data: blob},
			"both":       {ObjectMeta: metav1.ObjectMeta{Labels: managed, Annotations: long}, Data: short},
			"unlabelled": {ObjectMeta: metav1.ObjectMeta{Annotations: long}},
		} {
			secret.Namespace, secret.Name = w.ns, fmt.Sprintf("%s-%d", kind, i)
			w.create(secret)
			secrets++
		}
	}
	return secrets
}

// seen waits until both caches of Secrets have come as far as now.
func (w *world) seen(name string) {
	w.t.Helper()
	good := w.held("journeys")
	change(w, w.secret("journeys"), func(secret *corev1.Secret) { delete(secret.Data, "access_token") })
	w.Eventually(func() string { return w.held("journeys") }).Should(Equal(good)) // by the one
	credentials := name + "-package"
	w.token(name, func(token *v1alpha1.SFMCToken) { token.Spec.CredentialsSecretRef.Name = credentials })
	w.says(name, "Reconciling=True CredentialsNotFound")
	w.create(harness.CredentialsSecret(w.ns, credentials, w.sfmc, w.pkg))
	w.ready(name) // by the other
}

func TestWhatOthersWriteIntoSecretsIsNotHeldInMemory(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	w.seen("before")
	before := heldMB()
	count := w.foreignSecrets()
	w.seen("after")
	grown := heldMB() - before
	t.Logf("%d foreign Secrets: %.1f MB held before, %.1f MB more after their events", count, before, grown)
	w.Expect(grown).To(BeNumerically("<", 10), "after events")

	w.stopOperator()
	w.startOperator()
	w.seen("restarted")
	grown = heldMB() - before
	t.Logf("%d foreign Secrets: %.1f MB more after a start", count, grown)
	w.Expect(grown).To(BeNumerically("<", 10), "after a start")

	// A target that somebody fills up is cut, too, and put right. What others have added to its metadata stays.
	good := w.held("journeys")
	change(w, w.secret("journeys"), func(secret *corev1.Secret) {
		secret.Data = map[string][]byte{"blob": []byte(strings.Repeat("x", 900_000))}
		secret.Annotations["others"] = strings.Repeat("x", 100_000)
	})
	w.Eventually(func() string { return w.held("journeys") }).Should(Equal(good))
	w.Expect(w.secret("journeys").Data).NotTo(HaveKey("blob"))
	w.Expect(w.secret("journeys").Annotations["others"]).To(HaveLen(100_000))
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func TestALongRefreshRequestIsCutAndAnsweredOnce(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	w.ready("journeys")
	long := strings.Repeat("x", 200<<10)
	ask := func(request string) {
		change(w, token, func(token *v1alpha1.SFMCToken) {
			token.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: request}
		})
	}
	ask(long)
	w.Eventually(func() string { return w.get("journeys").Status.LastHandledRefreshRequest }).Should(Equal(long[:256]))
	w.Expect(w.sfmc.Count()).To(Equal(2))
	w.Expect(len(w.secret("journeys").Annotations[issued])).To(BeNumerically("<", 4000))

	ask(long + "y") // the same, as far as it counts
	good := w.held("journeys")
	change(w, w.secret("journeys"), func(secret *corev1.Secret) { delete(secret.Data, "access_token") })
	w.Eventually(func() string { return w.held("journeys") }).Should(Equal(good))
	w.Expect(w.sfmc.Count()).To(Equal(2))

	w.travel(20*time.Minute, 10*time.Second, func() bool { return w.sfmc.Count() > 2 })
	w.Eventually(func() string { return w.held("journeys") }).ShouldNot(Equal(good))
	w.ready("journeys")
}
