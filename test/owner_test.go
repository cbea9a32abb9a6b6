package test

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// aimAt has an SFMCToken name that target, with that policy.
func aimAt(name string, policy v1alpha1.DeletionPolicy) func(*v1alpha1.SFMCToken) {
	return func(t *v1alpha1.SFMCToken) { t.Spec.Target = &v1alpha1.Target{Name: name, DeletionPolicy: policy} }
}

var policies = []v1alpha1.DeletionPolicy{v1alpha1.DeletionPolicyDelete, v1alpha1.DeletionPolicyRetain}

func TestNoSingleEditMakesATargetAStrangers(t *testing.T) {
	for what, edit := range map[string]func(*corev1.Secret){
		"another manager":         func(s *corev1.Secret) { s.Labels[managedBy] = "Helm" },
		"no manager":              func(s *corev1.Secret) { delete(s.Labels, managedBy) },
		"no labels":               func(s *corev1.Secret) { s.Labels = nil },
		"another owner's label":   func(s *corev1.Secret) { s.Labels["sfmctoken.dev/owner-uid"] = "somebody" },
		"no annotations":          func(s *corev1.Secret) { s.Annotations = nil },
		"a record of another one": func(s *corev1.Secret) { s.Annotations["sfmctoken.dev/issued"] = `{"owner":"other","seal":"x"}` },
		"no owner":                func(s *corev1.Secret) { s.OwnerReferences = nil },
	} {
		for _, policy := range policies {
			for _, isDown := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, operator down: %t", what, policy, isDown), func(t *testing.T) {
					w := newWorld(t)
					w.token("journeys", aimAt("journeys", policy))
					w.ready("journeys")
					was := w.secret("journeys")
					if isDown {
						w.stopOperator()
					}
					change(w, w.secret("journeys"), edit)
					if isDown {
						w.startOperator()
					}
					w.Eventually(func(g Gomega) {
						is := w.secret("journeys")
						g.Expect(is.UID).To(Equal(was.UID))
						g.Expect(is.Labels).To(Equal(was.Labels))
						g.Expect(is.OwnerReferences).To(Equal(was.OwnerReferences))
						g.Expect(w.alive(w.held("journeys"), "510004567")).To(BeTrue())
					}).Should(Succeed())
					w.ready("journeys")
					w.Expect(w.sfmc.Count()).To(BeNumerically("<=", 2), "one request at most")
				})
			}
		}
	}
}

func TestSFMCTokensSwapTheirTargets(t *testing.T) {
	for _, size := range []int{2, 3} {
		for _, policy := range policies {
			t.Run(fmt.Sprintf("%d, %s", size, policy), func(t *testing.T) {
				w := newWorld(t)
				name := func(i int) string { return fmt.Sprintf("token-%d", i%size) }
				account := func(i int) string { return w.pkg.AccountIDs[i%size] }
				for i := range size {
					w.token(name(i), aimAt(name(i), policy), func(t *v1alpha1.SFMCToken) { t.Spec.AccountID = account(i) })
					w.ready(name(i))
				}
				for i := range size {
					change(w, w.get(name(i)), aimAt(name(i+1), policy))
				}
				for i := range size {
					w.Eventually(func() bool { return w.alive(w.held(name(i+1)), account(i)) }).Should(BeTrue())
					w.ready(name(i))
				}
				w.Expect(w.sfmc.Count()).To(Equal(size), "each has its token still")
			})
		}
	}
}

func TestTargetsRestoredFromABackupAreTakenUp(t *testing.T) {
	for _, policy := range policies {
		t.Run(string(policy), func(t *testing.T) {
			w := newWorld(t)
			token := w.token("journeys", aimAt("before", policy))
			w.ready("journeys")
			held, secret := w.held("before"), w.secret("before")
			w.stopOperator()
			w.Expect(admin.Delete(w.ctx, token)).To(Succeed())
			w.Expect(client.IgnoreNotFound(admin.Delete(w.ctx, secret))).To(Succeed())
			w.Eventually(func() *corev1.Secret { return w.secret("before") }).Should(BeNil())
			for _, object := range []client.Object{token, secret} {
				object.SetResourceVersion("")
				object.SetUID("")
				w.create(object) // with the owner that it had, which is no more
			}
			w.startOperator()
			w.Eventually(func() string {
				secret := w.secret("before")
				if secret == nil {
					return ""
				}
				return secret.Labels["sfmctoken.dev/owner-uid"]
			}).Should(Equal(string(token.UID)))
			w.ready("journeys")
			w.Expect(w.alive(w.held("before"), unit)).To(BeTrue())
			if policy == v1alpha1.DeletionPolicyRetain {
				w.Expect(w.held("before")).To(Equal(held))
			}

			change(w, token, aimAt("after", policy))
			w.Eventually(func() bool { return w.alive(w.held("after"), unit) }).Should(BeTrue())
			w.Eventually(func() *corev1.Secret { return w.secret("before") }).Should(BeNil())
			w.Expect(w.sfmc.Count()).To(BeNumerically("<=", 2), "the garbage collector may have been faster")
		})
	}
}
