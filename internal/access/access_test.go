package access_test

import (
	"errors"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/access"
)

// The operator's decisions by this are tested in internal/credentials and against an API server.
func TestANamespaceIsAskedForOnlyIfItMatters(t *testing.T) {
	token := &v1alpha1.SFMCToken{ObjectMeta: metav1.ObjectMeta{Namespace: "emea"}, Spec: v1alpha1.SFMCTokenSpec{
		AccountID:            "510004567",
		CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Namespace: "platform", Name: "package"},
	}}
	byName := v1alpha1.AccessGrantFrom{Namespace: "emea"}
	byLabel := v1alpha1.AccessGrantFrom{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"region": "emea"}}}
	anybody := v1alpha1.AccessGrantFrom{NamespaceSelector: &metav1.LabelSelector{}}
	unknown := errors.New("you may not read that")
	for name, row := range map[string]struct {
		from      []v1alpha1.AccessGrantFrom
		account   v1alpha1.AccountID
		namespace *metav1.PartialObjectMetadata
		fails     error
		isBlind   bool
		covers    bool
	}{
		"by name":                       {from: []v1alpha1.AccessGrantFrom{byName}, fails: unknown, covers: true},
		"by label":                      {from: []v1alpha1.AccessGrantFrom{byLabel}, namespace: labelled("emea"), covers: true},
		"another label":                 {from: []v1alpha1.AccessGrantFrom{byLabel}, namespace: labelled("apac")},
		"all labels":                    {from: []v1alpha1.AccessGrantFrom{anybody}, namespace: labelled("apac"), covers: true},
		"a namespace that is gone":      {from: []v1alpha1.AccessGrantFrom{anybody}},
		"where labels may not be read":  {from: []v1alpha1.AccessGrantFrom{byLabel}, fails: unknown},
		"where selectors don't count":   {from: []v1alpha1.AccessGrantFrom{anybody}, namespace: labelled("emea"), isBlind: true},
		"another account, by any label": {from: []v1alpha1.AccessGrantFrom{anybody}, account: "1", namespace: labelled("emea")},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			grant := &v1alpha1.SFMCAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: "platform"}, Spec: v1alpha1.SFMCAccessGrantSpec{
				CredentialsSecretRef: v1alpha1.GrantedSecretReference{Name: "package"}, From: row.from, AccountIDs: []v1alpha1.AccountID{"510004567"},
			}}
			if row.account != "" {
				grant.Spec.AccountIDs = []v1alpha1.AccountID{row.account}
			}
			namespaceOf := func() (*metav1.PartialObjectMetadata, error) { return row.namespace, row.fails }
			if row.isBlind {
				namespaceOf = nil
			}
			covers, err := access.Covers(grant, token, namespaceOf)
			g.Expect(covers).To(Equal(row.covers))
			if row.fails != nil && !row.covers {
				g.Expect(err).To(MatchError(row.fails))
			} else {
				g.Expect(err).NotTo(HaveOccurred())
			}
		})
	}
}

func labelled(region string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"region": region}}}
}
