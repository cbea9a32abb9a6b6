package target

import (
	"fmt"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// kept is what Keep leaves of a Secret.
func kept(secret *corev1.Secret) *corev1.Secret {
	left := secret.DeepCopy()
	Keep(left)
	return left
}

// fattened is a Secret, changed by a function that is given a text of 0.9 MB.
func fattened(secret *corev1.Secret, change func(secret *corev1.Secret, text string)) *corev1.Secret {
	fat := secret.DeepCopy()
	change(fat, strings.Repeat("x", 900_000))
	return fat
}

func addData(secret *corev1.Secret, text string) {
	secret.Data = map[string][]byte{"blob": []byte(text)}
}

func TestATargetIsKeptWholeButForManagedFields(t *testing.T) {
	g := NewWithT(t)
	for name, secret := range map[string]*corev1.Secret{
		"filled": holding(aToken()), "retained": filled(retaining()),
		"emptied": Of(holding(aToken())).Emptied(anSFMCToken()),
	} {
		secret.Annotations["kubectl.kubernetes.io/last-applied"] = "a Secret"
		full := secret.DeepCopy()
		full.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
		g.Expect(kept(full)).To(Equal(secret), name)
		g.Expect(IsWhole(kept(full))).To(BeTrue(), name)
	}
}

func TestASecretThatCannotBeATargetOrIsTooLargeLeavesItsMarks(t *testing.T) {
	g := NewWithT(t)
	foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "foreign", UID: "uid-7", Labels: managed},
		Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"password": []byte("hush")}}
	unsealed := holding(aToken())
	record(unsealed, Record{Owner: "journeys-emea"})
	unreadable := holding(aToken())
	unreadable.Annotations[recordAnnotation] = "{"
	for name, secret := range map[string]*corev1.Secret{
		"without a record": foreign, "with a record without a seal": unsealed, "with an unreadable record": unreadable,
		"forged with much data": fattened(filled(retaining()), addData),
		"with a long annotation": fattened(filled(retaining()), func(s *corev1.Secret, text string) {
			s.Annotations["others"] = text
		}),
		"with a long label": fattened(foreign, func(s *corev1.Secret, text string) { s.Labels[text] = text }),
		"with a long type":  fattened(foreign, func(s *corev1.Secret, text string) { s.Type = corev1.SecretType(text) }),
		"with many aliases": fattened(filled(retaining()), func(s *corev1.Secret, text string) {
			record(s, Record{Owner: "journeys-emea", Seal: "x", Notes: Notes{Aliases: strings.Split(text[:50_000], "")}})
		}),
		"with a long owner": fattened(foreign, func(s *corev1.Secret, text string) {
			s.OwnerReferences = []metav1.OwnerReference{{Kind: "Deployment", Name: text, Controller: ptr.To(true)}}
		}),
		"with many owners": fattened(foreign, func(s *corev1.Secret, text string) {
			s.OwnerReferences = make([]metav1.OwnerReference, len(text)/100)
		}),
	} {
		left := kept(secret)
		g.Expect(IsWhole(left)).To(BeFalse(), name)
		g.Expect(left.Data).To(BeEmpty(), name)
		g.Expect(left.Size()).To(BeNumerically("<", 2*maxMark), name)
		g.Expect(left.UID).To(Equal(secret.UID), name)
		g.Expect(Of(left).Token).To(BeNil(), name)
		g.Expect(kept(left)).To(Equal(left), "%s: a cache may do it twice", name)
	}
}

// TestWhatIsLeftOfALargeTargetStillTellsWhoseItIs: it is found by its owner and identities, then read as a whole.
func TestWhatIsLeftOfALargeTargetStillTellsWhoseItIs(t *testing.T) {
	g := NewWithT(t)
	another := anSFMCToken()
	another.Name, another.UID = "another", "uid-9"
	for name, secret := range map[string]*corev1.Secret{
		"owned": holding(aToken()), "retained": filled(retaining()), "another's": filled(another),
	} {
		rec := recordOf(secret)
		rec.Aliases = []string{strings.Repeat("a", 64)}
		for i := range 200 { // a record can be long, too
			rec.RequestedScopes = append(rec.RequestedScopes, fmt.Sprintf("%0128d", i))
		}
		record(secret, rec)
		left := kept(secret)
		g.Expect(IsWhole(left)).To(BeFalse(), name)
		g.Expect(OwnerUID(left)).To(Equal(OwnerUID(secret)), name)
		g.Expect(IdentitiesOf(left)).To(Equal(IdentitiesOf(secret)), name)
		g.Expect(BelongsTo(left, retaining())).To(Equal(BelongsTo(secret, retaining())), name)
		g.Expect(Conflict(left)).To(Equal(Conflict(secret)), name)
	}
}

func TestTheLongestNamesOfATargetLeaveItsMarks(t *testing.T) {
	g := NewWithT(t)
	obj := retaining()
	obj.Name, obj.UID = strings.Repeat("n", 253), types.UID(strings.Repeat("u", 36))
	secret := fattened(filled(obj), addData)
	g.Expect(BelongsTo(kept(secret), obj)).To(BeTrue())
	obj.Spec.Target = nil
	g.Expect(BelongsTo(kept(fattened(filled(obj), addData)), obj)).To(BeTrue())
}

func TestMetadataOfASecretIsShortWhateverIsInIt(t *testing.T) {
	g := NewWithT(t)
	for name, secret := range map[string]*corev1.Secret{
		"record": fattened(&corev1.Secret{}, func(s *corev1.Secret, text string) {
			s.Annotations = map[string]string{}
			record(s, Record{Owner: "journeys-emea", RefreshRequest: text})
		}),
		"owner in the record": fattened(&corev1.Secret{}, func(s *corev1.Secret, text string) {
			s.Annotations = map[string]string{}
			record(s, Record{Owner: text})
		}),
		"finalizer": fattened(&corev1.Secret{}, func(s *corev1.Secret, text string) { s.Finalizers = []string{text} }),
	} {
		marks := &metav1.PartialObjectMetadata{ObjectMeta: secret.ObjectMeta}
		KeepMarks(marks)
		g.Expect(marks.Size()).To(BeNumerically("<", 2*maxMark), name)
	}
}
