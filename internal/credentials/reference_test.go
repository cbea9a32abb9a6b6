package credentials

import (
	"context"
	"errors"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// hostNotAllowed returns what is wrong about a host; nil if that is not what is wrong.
func hostNotAllowed(err error) *sfmc.HostNotAllowedError {
	var badHost *sfmc.HostNotAllowedError
	errors.As(err, &badHost)
	return badHost
}

func isHostNotAllowed(err error) bool { return hostNotAllowed(err) != nil }

// cluster is an API server, and a cache, that holds one Secret and grants.
type cluster struct {
	client.Reader
	secret *corev1.Secret
	names  []string // of Secrets beside it
	grants []v1alpha1.SFMCAccessGrant
	err    error // of each read
}

func (c cluster) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	if c.err != nil {
		return c.err
	}
	if c.secret == nil || key != client.ObjectKeyFromObject(c.secret) {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, key.Name)
	}
	switch obj := obj.(type) {
	case *corev1.Secret:
		c.secret.DeepCopyInto(obj)
	case *metav1.PartialObjectMetadata:
		c.secret.ObjectMeta.DeepCopyInto(&obj.ObjectMeta)
	}
	return nil
}

// List finds grants as the index does.
func (c cluster) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	var asked client.ListOptions
	asked.ApplyOptions(options)
	if metadata, isMetadata := list.(*metav1.PartialObjectMetadataList); isMetadata {
		if c.secret != nil && c.secret.Namespace == asked.Namespace {
			for _, name := range c.names {
				metadata.Items = append(metadata.Items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}})
			}
		}
		return c.err
	}
	found := list.(*v1alpha1.SFMCAccessGrantList)
	for i := range c.grants {
		for _, key := range GrantKeys(&c.grants[i]) {
			if c.grants[i].Namespace == asked.Namespace && asked.FieldSelector.String() == IndexGrants+"="+key {
				found.Items = append(found.Items, c.grants[i])
			}
		}
	}
	return c.err
}

func (c cluster) store() *Store { return &Store{Live: c, Metadata: c, Cache: c} }

// secretOf is the credentials Secret that an SFMCToken refers to.
func secretOf(obj *v1alpha1.SFMCToken) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: KeyOf(obj).Namespace, Name: KeyOf(obj).Name, UID: "uid-2", ResourceVersion: "42",
		},
		Data: keys(nil),
	}
}

// mean matches an error with this meaning.
func mean(reason v1alpha1.ProblemReason, revokes bool) OmegaMatcher {
	return WithTransform(problem.Of, And(HaveField("Reason", reason), HaveField("Revokes", revokes)))
}

// anSFMCToken refers to credentials of a namespace, its own if that is empty.
func anSFMCToken(namespace string) *v1alpha1.SFMCToken {
	return &v1alpha1.SFMCToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: "marketing", Name: "journeys-emea", UID: "uid-1"},
		Spec: v1alpha1.SFMCTokenSpec{
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Namespace: namespace, Name: "sfmc-package"},
			AccountID:            "510004567",
			Scopes:               []v1alpha1.Scope{"journeys_read", "email_read"},
		},
	}
}

// aGrant covers anSFMCToken with credentials of the namespace platform.
func aGrant() v1alpha1.SFMCAccessGrant {
	return v1alpha1.SFMCAccessGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: "platform", Name: "marketing"},
		Spec: v1alpha1.SFMCAccessGrantSpec{
			CredentialsSecretRef: v1alpha1.GrantedSecretReference{Name: "sfmc-package"},
			From:                 []v1alpha1.AccessGrantFrom{{Namespace: "marketing"}},
			AccountIDs:           []v1alpha1.AccountID{"510004567"},
		},
	}
}

func TestASecretWithKustomizesHashIsNamedWhereTheOneWithoutItIsMissing(t *testing.T) {
	g := NewWithT(t)
	other := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "marketing", Name: "other"}}
	says := func(namespace string, names ...string) string {
		foreign := anSFMCToken(namespace)
		other.Namespace = KeyOf(foreign).Namespace
		_, err := cluster{secret: other, names: names, grants: []v1alpha1.SFMCAccessGrant{aGrant()}}.store().Of(foreign).Version(t.Context())
		g.Expect(err).To(mean(v1alpha1.ReasonCredentialsNotFound, namespace != ""))
		return err.Error()
	}
	const hint = `; Secret "sfmc-package-5h2f7t9kg8" is there: if kustomize made it, `
	g.Expect(says("", "sfmc-package-9", "sfmc-package-5h2f7t9kg8", "a")).To(ContainSubstring(hint))
	g.Expect(says("", "sfmc-packages", "sfmc", "a-sfmc-package-1")).NotTo(ContainSubstring("is there"))
	g.Expect(says("platform", "sfmc-package-5h2f7t9kg8")).NotTo(ContainSubstring("is there"), "nobody learns of others' Secrets")
}

func TestErrorsOfCredentialsNameTheSecretAndWhatToWrite(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken("")
	_, err := cluster{}.store().Of(obj).Read(t.Context())
	g.Expect(err).To(MatchError(`the credentials Secret "sfmc-package" does not exist in namespace "marketing"; ` +
		`create it with the keys client_id, client_secret and auth_base_uri`))
	g.Expect(err).To(mean(v1alpha1.ReasonCredentialsNotFound, false))

	secret := secretOf(obj)
	secret.Data = without("client_id")
	got, err := cluster{secret: secret}.store().Of(obj).Read(t.Context())
	g.Expect(err).To(MatchError(`the credentials Secret "sfmc-package" can't be used: key client_id is missing`))
	g.Expect(err).To(mean(v1alpha1.ReasonCredentialsInvalid, false))
	g.Expect(got).To(BeZero())

	secret.Data = with("auth_base_uri", "https://evil.example")
	_, err = cluster{secret: secret}.store().Of(obj).Read(t.Context())
	g.Expect(err).To(MatchError(
		HavePrefix(`the credentials Secret "sfmc-package" can't be used: key auth_base_uri: its host`)))
	g.Expect(err).To(MatchError(isHostNotAllowed, "the host isn't allowed"))
	g.Expect(err).To(mean(v1alpha1.ReasonHostNotAllowed, false))

	gone := errors.New("etcd is gone")
	_, err = cluster{err: gone}.store().Of(obj).Read(t.Context())
	g.Expect(err).To(And(MatchError("read the credentials Secret: etcd is gone"), MatchError(gone)))
	g.Expect(err).To(mean(v1alpha1.ReasonKubernetesAPIError, false))
}

func TestCredentialsAreReadWithTheirVersion(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken("")
	reference := cluster{secret: secretOf(obj)}.store().Of(obj)
	read, err := reference.Read(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read).To(Equal(Credentials{Version: "marketing/sfmc-package/uid-2/42",
		authHost: tenantHost, clientID: hushID, clientSecret: hushSecret}))
	g.Expect(reference.Version(t.Context())).To(Equal(read.Version), "else they are read again and again")
	_, err = cluster{}.store().Of(obj).Version(t.Context())
	g.Expect(err).To(mean(v1alpha1.ReasonCredentialsNotFound, false))
	_, err = cluster{err: errors.New("the cache is gone")}.store().Of(obj).Version(t.Context())
	g.Expect(err).To(MatchError("look up the credentials Secret: the cache is gone"))
}

func TestTheCredentialsSecretIsInItsVersion(t *testing.T) {
	g := NewWithT(t)
	for version, secret := range map[string]types.NamespacedName{
		"":                                   {},
		"a/b":                                {},
		"marketing/sfmc-package/uid/42":      {Namespace: "marketing", Name: "sfmc-package"},
		"m/a.b/uid/1":                        {Namespace: "m", Name: "a.b"},
		versionOf(secretOf(anSFMCToken(""))): KeyOf(anSFMCToken("")),
	} {
		g.Expect(KeyIn(version)).To(Equal(secret), version)
	}
}

func TestCredentialsOfTheOwnNamespaceNeedNoGrantAndThoseOfAnotherOneDo(t *testing.T) {
	g := NewWithT(t)
	own, foreign := anSFMCToken(""), anSFMCToken("platform")
	named := anSFMCToken("marketing")
	granting := cluster{secret: secretOf(foreign), grants: []v1alpha1.SFMCAccessGrant{aGrant()}}
	for _, obj := range []*v1alpha1.SFMCToken{own, named} {
		g.Expect(IsForeign(obj)).To(BeFalse())
		g.Expect(cluster{}.store().Of(obj).Allow(t.Context())).To(Succeed())
	}
	g.Expect(IsForeign(foreign)).To(BeTrue())
	g.Expect(granting.store().Of(foreign).Allow(t.Context())).To(Succeed())

	err := cluster{secret: secretOf(foreign)}.store().Of(foreign).Allow(t.Context())
	g.Expect(err).To(MatchError(`namespace "marketing" is not granted the credentials Secret "sfmc-package" of ` +
		`namespace "platform" for account 510004567 with the scopes journeys_read email_read; ` +
		`ask the owners of that namespace for an SFMCAccessGrant that covers all of this`))
	g.Expect(err).To(mean(v1alpha1.ReasonAccessDenied, true))
	g.Expect(cluster{}.store().Of(foreign).Allow(t.Context())).To(Equal(err), "nobody learns by asking what is there")
	foreign.Spec.Scopes = nil
	g.Expect(cluster{}.store().Of(foreign).Allow(t.Context())).To(
		MatchError(ContainSubstring("with all scopes of the package, since spec.scopes is absent;")))

	err = cluster{err: errors.New("the cache is gone")}.store().Of(foreign).Allow(t.Context())
	g.Expect(err).To(MatchError("look for an SFMCAccessGrant: the cache is gone"))
	g.Expect(err).To(mean(v1alpha1.ReasonKubernetesAPIError, false))
}

func TestAReferenceOfAnUnknownKindIsDenied(t *testing.T) {
	g := NewWithT(t)
	granting := cluster{grants: []v1alpha1.SFMCAccessGrant{aGrant()}}
	for _, obj := range []*v1alpha1.SFMCToken{anSFMCToken(""), anSFMCToken("platform")} {
		granting.secret = secretOf(obj)
		g.Expect(granting.store().Of(obj).Allow(t.Context())).To(Succeed(), "a Secret there is allowed")
		for _, unknown := range []kind{"ConfigMap", "secret", ""} {
			reference := granting.store().Of(obj)
			reference.kind = unknown
			g.Expect(reference.Allow(t.Context())).To(mean(v1alpha1.ReasonAccessDenied, true), "%s", unknown)
		}
	}
}

func TestCredentialsOfAnotherNamespaceThatAreGoneMayNotBeUsedAnyMore(t *testing.T) {
	g := NewWithT(t)
	gone := cluster{grants: []v1alpha1.SFMCAccessGrant{aGrant()}}.store()
	foreign := gone.Of(anSFMCToken("platform"))
	_, unread := foreign.Read(t.Context())
	_, unseen := foreign.Version(t.Context())
	for _, err := range []error{foreign.Allow(t.Context()), unread, unseen} {
		g.Expect(err).To(mean(v1alpha1.ReasonCredentialsNotFound, true))
	}
	own := gone.Of(anSFMCToken(""))
	g.Expect(own.Allow(t.Context())).To(Succeed(), "the token stays in the Secret")
	_, unread = own.Read(t.Context())
	g.Expect(unread).To(mean(v1alpha1.ReasonCredentialsNotFound, false))
}

func TestAnSFMCTokenIsWokenByItsCredentialsAlone(t *testing.T) {
	g := NewWithT(t)
	for _, obj := range []*v1alpha1.SFMCToken{anSFMCToken(""), anSFMCToken("platform")} {
		g.Expect(Wakers(obj)).To(ConsistOf(SecretWaker(KeyOf(obj))))
		for _, other := range []types.NamespacedName{{}, {Namespace: "sales", Name: "sfmc-package"},
			{Namespace: KeyOf(obj).Namespace, Name: "another"}} {
			g.Expect(Wakers(obj)).NotTo(ContainElement(SecretWaker(other)))
		}
	}
}
