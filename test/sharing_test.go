package test

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

func TestOneIdentityCostsOneRequestInAllNamespaces(t *testing.T) {
	const namespaces, each = 5, 40
	w := newWorld(t)
	w.sfmc.ChangeMode(func(mode *sfmctest.Mode) { mode.KillOldTokens = true })
	var all []client.ObjectKey
	for range namespaces {
		namespace := w.namespace()
		w.create(harness.CredentialsSecret(namespace, "sfmc-package", w.sfmc, w.pkg))
		for i := range each {
			token := harness.Token(namespace, fmt.Sprintf("token-%d", i), "sfmc-package", "510004567")
			if i%2 == 1 { // no other identity, though an earlier refresh
				token.Spec.RefreshBefore = &metav1.Duration{Duration: 340 * time.Second}
			}
			w.create(token)
			all = append(all, client.ObjectKeyFromObject(token))
		}
	}
	// The same living token in all of them.
	same := func(g Gomega) {
		held := map[string]int{}
		for _, key := range all {
			var secret corev1.Secret
			g.Expect(admin.Get(w.ctx, key, &secret)).To(Succeed())
			held[string(secret.Data["access_token"])]++
		}
		g.Expect(held).To(HaveLen(1))
		for token := range held {
			g.Expect(w.alive(token, "510004567")).To(BeTrue())
		}
	}
	w.Eventually(same, patience, 100*time.Millisecond).Should(Succeed())
	w.Expect(w.sfmc.Count()).To(Equal(1))

	// Again after a refresh,
	w.step(790 * time.Second)
	w.Eventually(w.sfmc.Count).Should(Equal(2))
	w.Eventually(same, patience, 100*time.Millisecond).Should(Succeed())
	w.Expect(w.sfmc.Count()).To(Equal(2))

	// after a restart, also for a newcomer,
	w.stopOperator()
	w.startOperator()
	w.token("newcomer")
	w.ready("newcomer")
	w.Expect(w.sfmc.Count()).To(Equal(2))

	// and when one of them asks for a new one.
	change(w, w.get("newcomer"), func(token *v1alpha1.SFMCToken) {
		token.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: "now"}
	})
	w.Eventually(w.sfmc.Count).Should(Equal(3))
	w.Eventually(same, patience, 100*time.Millisecond).Should(Succeed())
	w.Expect(w.sfmc.Count()).To(Equal(3))
}

func TestATokenPlantedInASecretIsNotShared(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	// Whoever may write Secrets here copies the record, which is not secret, and puts in a token of their own.
	planted := w.secret("journeys")
	planted.Name, planted.ResourceVersion, planted.UID, planted.OwnerReferences = "planted", "", "", nil
	planted.Data["access_token"] = []byte("planted-token")
	w.stopOperator()
	w.create(planted)
	w.Expect(admin.Delete(w.ctx, w.secret("journeys"))).To(Succeed())
	w.startOperator()
	w.ready("journeys")
	w.Eventually(func() string { return w.held("journeys") }).ShouldNot(BeEmpty())
	w.Expect(w.held("journeys")).NotTo(Equal("planted-token"))
	w.Expect(w.sfmc.Count()).To(Equal(2))
}
