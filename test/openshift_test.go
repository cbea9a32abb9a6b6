package test

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// guardedOwners is a control plane where nobody changes the owners of an object who may not delete it, as on OpenShift.
var guardedOwners = sync.OnceValues(func() (harness.Shared, error) {
	return harness.Start(context.Background(), localcluster.Options{Out: os.Stderr, APIServerFlags: []string{
		"--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
	}})
})

// stopGuardedOwners stops it after all tests, if any has started it.
func stopGuardedOwners() {
	if isGuardedOwnersStarted {
		shared, _ := guardedOwners()
		_ = shared.Cluster.Stop()
	}
}

var isGuardedOwnersStarted bool

// newGuardedWorld is a world on that control plane. Tests of this package run one after another.
func newGuardedWorld(t *testing.T) *world {
	isGuardedOwnersStarted = true
	shared, err := guardedOwners()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	before := harness.Shared{Cluster: cluster, Admin: admin, Operator: operator}
	cluster, admin, operator = shared.Cluster, shared.Admin, shared.Operator
	t.Cleanup(func() { cluster, admin, operator = before.Cluster, before.Admin, before.Operator })
	return newWorld(t)
}

const (
	ownerOutdated = "OwnerOutdated=True OwnerChangeDenied"
	ownerRight    = "OwnerOutdated absent"
)

// isRefreshed expects the next token to be written when it is due.
func (w *world) isRefreshed(name string) {
	w.t.Helper()
	old := w.held(name)
	w.travel(14*time.Minute, 10*time.Second, func() bool { return w.held(name) != old && w.held(name) != "" })
	w.Expect(w.alive(w.held(name), unit)).To(BeTrue())
}

func TestWhereOwnersAreGuardedTokensAreWrittenAndTakenOutAllTheSame(t *testing.T) {
	t.Run("a new target has its owner", func(t *testing.T) {
		w := newGuardedWorld(t)
		w.token("journeys")
		w.ready("journeys")
		w.says("journeys", ownerRight)
		w.Expect(w.secret("journeys").OwnerReferences).To(HaveLen(1))
	})
	for _, policy := range policies {
		t.Run("deletionPolicy changes to "+string(policy), func(t *testing.T) {
			w := newGuardedWorld(t)
			other := policies[0]
			if policy == other {
				other = policies[1]
			}
			token := w.token("journeys", aimAt("journeys", other))
			w.ready("journeys")
			owners := w.secret("journeys").OwnerReferences
			change(w, token, aimAt("journeys", policy))
			w.says("journeys", valid, fine, settled, ownerOutdated)
			w.isRefreshed("journeys")
			w.Expect(w.secret("journeys").OwnerReferences).To(Equal(owners))
			w.Expect(w.sfmc.Count()).To(Equal(2))

			w.mayDeleteSecrets()
			w.isRefreshed("journeys")
			w.says("journeys", valid, ownerRight)
			w.Expect(w.secret("journeys").OwnerReferences).NotTo(Equal(owners))
		})
	}
	for _, policy := range policies {
		t.Run("another name, with "+string(policy), func(t *testing.T) {
			w := newGuardedWorld(t)
			token := w.token("journeys", aimAt("before", policy))
			w.ready("journeys")
			change(w, token, aimAt("after", policy))
			w.Eventually(func() bool { return w.alive(w.held("after"), unit) }).Should(BeTrue())
			w.says("journeys", valid, fine, settled, ownerOutdated)
			w.Expect(w.secret("before").Data).To(BeEmpty(), "a former target keeps no token")
			w.isRefreshed("after")

			// What the condition advises to do.
			w.Expect(admin.Delete(w.ctx, w.secret("before"))).To(Succeed())
			w.isRefreshed("after")
			w.says("journeys", valid, ownerRight)
			w.Expect(w.secret("before")).To(BeNil())
		})
	}
	t.Run("another account, and then no right to it", func(t *testing.T) {
		w := newGuardedWorld(t)
		platform := w.platform()
		grant := w.grant(platform, "emea")
		token := w.token("journeys", from(platform, "package"), aimAt("journeys", v1alpha1.DeletionPolicyDelete))
		w.ready("journeys")
		change(w, token, aimAt("journeys", v1alpha1.DeletionPolicyRetain))
		w.says("journeys", valid, ownerOutdated)
		change(w, token, func(t *v1alpha1.SFMCToken) { t.Spec.AccountID = w.pkg.AccountIDs[2] })
		w.emptied("journeys")
		change(w, token, func(t *v1alpha1.SFMCToken) { t.Spec.AccountID = unit })
		w.Eventually(func() bool { return w.alive(w.held("journeys"), unit) }).Should(BeTrue())
		w.Expect(admin.Delete(w.ctx, grant)).To(Succeed())
		w.emptied("journeys")
	})
}

// mayDeleteSecrets gives the operator the right that the condition names.
func (w *world) mayDeleteSecrets() {
	meta := metav1.ObjectMeta{Namespace: w.ns, Name: "owners"}
	w.create(
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"delete"}}}},
		&rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "owners"},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: harness.SystemNamespace, Name: harness.ServiceAccount}}})
}
