package controller

import (
	"cmp"
	"context"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
)

// indexing adds to a cache the indexes that the manager's has.
type indexing struct{ *fake.ClientBuilder }

func (i indexing) IndexField(_ context.Context, obj client.Object, field string, values client.IndexerFunc) error {
	i.WithIndex(obj, field, values)
	return nil
}

// newAffectedTokens finds those that something matters to among these.
func newAffectedTokens(g *WithT, objs ...client.Object) affectedTokens {
	builder := fake.NewClientBuilder().WithScheme(ManagerOptions(nil).Scheme)
	metadata := indexing{fake.NewClientBuilder()}
	g.Expect(addIndexes(context.Background(), indexing{builder}, metadata)).To(Succeed())
	return affectedTokens{reader: builder.WithObjects(objs...).Build()}
}

// referring is an SFMCToken that refers to a Secret of a namespace; its own if that is empty.
func referring(namespace, name, secretNamespace, secret string) *v1alpha1.SFMCToken {
	obj := anSFMCToken()
	obj.Namespace, obj.Name, obj.UID = namespace, name, types.UID(namespace+"/"+name)
	obj.Spec.CredentialsSecretRef = v1alpha1.CredentialsSecretReference{Namespace: secretNamespace, Name: secret}
	return obj
}

func namesOf(requests []reconcile.Request) []string {
	names := make([]string, 0, len(requests))
	for _, request := range requests {
		names = append(names, request.String())
	}
	return names
}

func metadataOf(namespace, name string) *metav1.PartialObjectMetadata {
	secret := credentials.MetadataOf("Secret")
	secret.Namespace, secret.Name = namespace, name
	return secret
}

func TestAnSFMCTokenIsFoundByWhatMustWakeIt(t *testing.T) {
	g := NewWithT(t)
	tokens := []*v1alpha1.SFMCToken{
		referring("marketing", "beside", "", "sfmc-package"),
		referring("sales", "foreign", "marketing", "sfmc-package"),
		referring("sales", "namesake", "", "sfmc-package"),
		referring("marketing", "another", "", "another"),
	}
	found := newAffectedTokens(g, tokens[0], tokens[1], tokens[2], tokens[3])
	for _, obj := range tokens {
		for _, waker := range credentials.Wakers(obj) {
			g.Expect(namesOf(found.list(t.Context(), client.MatchingFields{indexCredentials: waker}))).To(
				ContainElement(client.ObjectKeyFromObject(obj).String()))
		}
		of := cmp.Or(obj.Spec.CredentialsSecretRef.Namespace, obj.Namespace)
		key := types.NamespacedName{Namespace: of, Name: obj.Spec.CredentialsSecretRef.Name}
		g.Expect(credentials.Wakers(obj)).To(Equal([]string{credentials.SecretWaker(key)}))
	}
	g.Expect(namesOf(found.bySecret(t.Context(), metadataOf("marketing", "sfmc-package")))).To(
		ConsistOf("marketing/beside", "sales/foreign"))
	g.Expect(namesOf(found.bySecret(t.Context(), metadataOf("sales", "sfmc-package")))).To(
		ConsistOf("sales/namesake"))
	g.Expect(found.bySecret(t.Context(), metadataOf("marketing", "nobody-refers-to-it"))).To(BeEmpty())
}

func TestAnSFMCTokenIsFoundByTheNameOfItsTarget(t *testing.T) {
	g := NewWithT(t)
	renamed := referring("marketing", "renamed", "", "sfmc-package")
	renamed.Spec.Target = &v1alpha1.Target{Name: "journeys-token"}
	elsewhere := referring("sales", "journeys-token", "", "sfmc-package")
	found := newAffectedTokens(g, renamed, elsewhere)
	secret := aSecret("journeys-token")
	g.Expect(namesOf(found.bySecret(t.Context(), secret))).To(Equal([]string{"marketing/renamed"}))
	g.Expect(found.bySecret(t.Context(), aSecret("renamed"))).To(BeEmpty())

	squatter := metadataOf("marketing", "journeys-token")
	g.Expect(namesOf(found.bySecret(t.Context(), squatter))).To(Equal([]string{"marketing/renamed"}))
}

func TestAnSFMCTokenIsFoundByTheGrantThatItNeeds(t *testing.T) {
	g := NewWithT(t)
	found := newAffectedTokens(g,
		referring("marketing", "beside", "", "sfmc-package"),
		referring("sales", "foreign", "marketing", "sfmc-package"),
		referring("support", "foreign", "marketing", "sfmc-package"),
		referring("sales", "another", "marketing", "another"))
	grant := func(from v1alpha1.AccessGrantFrom, accountIDs ...v1alpha1.AccountID) []string {
		of := &v1alpha1.SFMCAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: "marketing", Name: "grant"}}
		of.Spec.CredentialsSecretRef.Name = "sfmc-package"
		of.Spec.AccountIDs, of.Spec.From = accountIDs, []v1alpha1.AccessGrantFrom{from}
		return namesOf(found.byGrant(t.Context(), of))
	}
	sales, selected := v1alpha1.AccessGrantFrom{Namespace: "sales"},
		v1alpha1.AccessGrantFrom{NamespaceSelector: &metav1.LabelSelector{}}
	g.Expect(grant(sales, "510004567")).To(ConsistOf("sales/foreign"))
	g.Expect(grant(selected, "510004567")).To(ConsistOf("sales/foreign", "support/foreign"))
	g.Expect(grant(sales, "510007777")).To(BeEmpty())
}
