package controller

import (
	"context"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

// aFatSecret is one of 0.9 MB with the operator's label, which belongs to an owner if there is one.
func aFatSecret(name string, owner *v1alpha1.SFMCToken) *corev1.Secret {
	secret := aSecret(name)
	secret.Labels = map[string]string{target.ManagedByLabel: target.ManagedByValue}
	secret.Annotations["others"] = strings.Repeat("x", 100_000)
	secret.Data["blob"] = []byte(strings.Repeat("x", 800_000))
	if owner != nil {
		secret.OwnerReferences = []metav1.OwnerReference{{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SFMCToken",
			Name: owner.Name, UID: owner.UID, Controller: ptr.To(true)}}
	}
	return secret
}

func TestATargetThatTheCacheHasCutIsReadWhole(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken()
	secret := aFatSecret(obj.TargetSecretName(), obj)
	secret.Namespace = obj.Namespace
	o, server, cache := newObjects(g, secret)
	cut := cache.cached[nameOf(secret, client.ObjectKeyFromObject(secret))].(*corev1.Secret)
	g.Expect(target.IsWhole(cut)).To(BeFalse())
	got, err := o.readTarget(context.Background(), obj)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got.Secret.Data).To(Equal(secret.Data))
	g.Expect(got.Secret.Annotations).To(Equal(secret.Annotations), "it is written with what others have put there")
	g.Expect(server.reads).To(HaveLen(1))
}

func TestALargeSecretOfAStrangerIsNotRead(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken()
	stranger := anSFMCToken()
	stranger.Name, stranger.UID = "stranger", "uid-of-a-stranger"
	secret := aFatSecret(obj.TargetSecretName(), stranger)
	secret.Namespace = obj.Namespace
	o, server, _ := newObjects(g, secret)
	_, err := o.readTarget(context.Background(), obj)
	g.Expect(problem.Of(err).Reason).To(Equal(v1alpha1.ReasonTargetConflict))
	g.Expect(server.reads).To(BeEmpty())
}

func TestALargeSecretThatWasWrittenIsRememberedAsTheCacheWouldHaveIt(t *testing.T) {
	g := NewWithT(t)
	secret := aSecret("journeys")
	o, server, _ := newObjects(g, secret)
	fat := aFatSecret("journeys", nil)
	fat.ResourceVersion = secret.ResourceVersion
	g.Expect(o.put(context.Background(), secret, fat)).To(Succeed())
	known := read(g, o, secret)
	g.Expect(known.ResourceVersion).To(Equal(fat.ResourceVersion))
	g.Expect(target.IsWhole(known)).To(BeFalse())
	g.Expect(known.Size()).To(BeNumerically("<", 2000))
	g.Expect(server.reads).To(BeEmpty())
}

func TestOfAnSFMCTokenAndAGrantNoMetadataIsKeptButTheRefreshRequest(t *testing.T) {
	g := NewWithT(t)
	long := strings.Repeat("x", 200<<10)
	metadata := metav1.ObjectMeta{Namespace: "marketing", Name: "journeys", UID: "uid-1", Generation: 3,
		Labels: map[string]string{"app": "x"}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
		Annotations: map[string]string{"others": long, v1alpha1.RefreshRequestedAtAnnotation: long}}
	obj := &v1alpha1.SFMCToken{ObjectMeta: metadata}
	grant := &v1alpha1.SFMCAccessGrant{ObjectMeta: *metadata.DeepCopy()}
	for range 2 { // a cache may do it twice
		for _, object := range []client.Object{obj, grant} {
			got, err := keep(object)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got).To(BeIdenticalTo(object))
		}
	}
	left := metav1.ObjectMeta{Namespace: "marketing", Name: "journeys", UID: "uid-1", Generation: 3}
	g.Expect(grant.ObjectMeta).To(Equal(left))
	left.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: long[:256]}
	g.Expect(obj.ObjectMeta).To(Equal(left))
}
