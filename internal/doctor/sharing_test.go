package doctor_test

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

func TestSFMCTokensOfOneIdentityShareATokenAcrossNamespaces(t *testing.T) {
	g := NewWithT(t)
	var tokens []v1alpha1.SFMCToken
	var secrets []metav1.PartialObjectMetadata
	add := func(namespace, name, target, record string) types.NamespacedName {
		token := v1alpha1.SFMCToken{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		token.Status.TargetSecretName = target
		tokens = append(tokens, token)
		if record != "" {
			secrets = append(secrets, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: "s-" + name, Annotations: map[string]string{"sfmctoken.dev/issued": record},
			}})
		}
		return types.NamespacedName{Namespace: namespace, Name: name}
	}
	a := add("marketing", "a", "s-a", `{"identity":"one"}`)
	b := add("sales", "b", "s-b", `{"identity":"one"}`)
	rotated := add("sales", "rotated", "s-rotated", `{"identity":"three","aliases":["one","four"]}`)
	later := add("sales", "later", "s-later", `{"identity":"four","aliases":["three"]}`)
	add("sales", "alone", "s-alone", `{"identity":"two"}`)
	add("sales", "no-token-of-its-own", "", `{"identity":"one"}`)
	add("marketing", "same-name-elsewhere", "s-b", "")
	add("marketing", "no-record", "s-no-record", `{}`)
	add("marketing", "no-record-either", "s-no-record-either", `not JSON`)

	g.Expect(doctor.Sharers(tokens, secrets)).To(Equal(map[types.NamespacedName][]types.NamespacedName{
		a: {b, rotated}, b: {a, rotated}, rotated: {later, a, b}, later: {rotated},
	}))
	g.Expect(doctor.Sharers(tokens, nil)).To(BeEmpty())
}
