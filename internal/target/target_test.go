package target

import (
	"maps"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// retaining is anSFMCToken that retains its target Secret.
func retaining() *v1alpha1.SFMCToken {
	obj := anSFMCToken()
	obj.Spec.Target = &v1alpha1.Target{DeletionPolicy: v1alpha1.DeletionPolicyRetain}
	return obj
}

// filled is the target Secret of an SFMCToken.
func filled(obj *v1alpha1.SFMCToken) *corev1.Secret {
	return Target{}.Filled(obj, aToken(), someNotes(), nil)
}

// beAs matches a Secret that needn't be written over another one.
func beAs(there *corev1.Secret) OmegaMatcher {
	return Satisfy(func(secret *corev1.Secret) bool { return equality.Semantic.DeepEqual(there, secret) })
}

// ownedBy is a Secret with an owner.
func ownedBy(owner metav1.OwnerReference, labels map[string]string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Namespace: "marketing", Name: "journeys-emea", Labels: labels, OwnerReferences: []metav1.OwnerReference{owner},
	}, Type: corev1.SecretTypeOpaque}
}

func sfmcTokenOwner(name string, uid types.UID) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "sfmctoken.dev/v1alpha1", Kind: "SFMCToken", Name: name, UID: uid,
		Controller: ptr.To(true)}
}

var managed = map[string]string{"app.kubernetes.io/managed-by": "sfmctoken-operator"}

func TestASecretIsClaimedOnlyByItsOwner(t *testing.T) {
	deployment := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "shop", UID: "uid-1",
		Controller: ptr.To(true)}
	notControlling := sfmcTokenOwner("journeys-emea", "uid-1")
	notControlling.Controller = nil
	another := retaining()
	another.Name, another.UID = "another", "uid-2"
	unrecorded := filled(retaining())
	unrecorded.Annotations = nil
	unlabelled := filled(retaining())
	unlabelled.Labels = nil
	typed := filled(anSFMCToken())
	typed.Type = corev1.SecretTypeServiceAccountToken
	both := filled(retaining())
	both.OwnerReferences = []metav1.OwnerReference{deployment}
	for name, row := range map[string]struct {
		secret *corev1.Secret
		owner  string // empty if it is the SFMCToken's
	}{
		"its own":                        {filled(anSFMCToken()), ""},
		"its own, renamed":               {ownedBy(sfmcTokenOwner("before", "uid-1"), nil), ""},
		"its own, without the label":     {ownedBy(sfmcTokenOwner("journeys-emea", "uid-1"), nil), ""},
		"its own, of another version":    {ownedBy(ofVersion("sfmctoken.dev/v1"), nil), ""},
		"an earlier one's of the name":   {ownedBy(sfmcTokenOwner("journeys-emea", "uid-0"), managed), ""},
		"retained for it":                {filled(retaining()), ""},
		"emptied and retained for it":    {Target{}.Emptied(retaining()), ""},
		"released by it":                 {Of(filled(anSFMCToken())).Released(anSFMCToken()), ""},
		"another SFMCToken's":            {ownedBy(sfmcTokenOwner("another", "uid-3"), managed), "SFMCToken another"},
		"a Deployment's":                 {ownedBy(deployment, managed), "Deployment shop"},
		"that of a kind of the name":     {ownedBy(ofVersion("example.com/v1"), managed), "SFMCToken journeys-emea"},
		"that of an API of like name":    {ownedBy(ofVersion("sfmctoken.devs/v1"), managed), "SFMCToken journeys-emea"},
		"retained, and a Deployment's":   {both, "Deployment shop"},
		"retained for another SFMCToken": {filled(another), "SFMCToken another, for which it was retained"},
		"retained, without labels":       {unlabelled, ""},
		"retained, without a record":     {unrecorded, ""},
		"one that it doesn't control":    {ownedBy(notControlling, managed), "somebody else"},
		"nobody's":                       {&corev1.Secret{Type: corev1.SecretTypeOpaque}, "somebody else"},
		"of another type":                {typed, "somebody who gave it the type kubernetes.io/service-account-token"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			row.secret.Name = "journeys-emea"
			got, err := Claim(row.secret, anSFMCToken())
			if row.owner == "" {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(got).To(Equal(Of(row.secret)))
				g.Expect(BelongsTo(row.secret, anSFMCToken())).To(BeTrue())
				return
			}
			g.Expect(err).To(MatchError(`the target Secret "journeys-emea" exists and belongs to ` + row.owner +
				`; it is left untouched: choose another spec.target.name, or delete that Secret`))
			g.Expect(problem.Of(err).Reason).To(Equal(v1alpha1.ReasonTargetConflict))
			g.Expect(got).To(BeZero())
			if row.secret != typed {
				g.Expect(BelongsTo(row.secret, anSFMCToken())).To(BeFalse())
				g.Expect(Conflict(row.secret)).To(Equal(err))
			}
		})
	}
}

func ofVersion(apiVersion string) metav1.OwnerReference {
	owner := sfmcTokenOwner("journeys-emea", "uid-1")
	owner.APIVersion = apiVersion
	return owner
}

func TestASecretIsFoundByItsSFMCToken(t *testing.T) {
	g := NewWithT(t)
	unlabelled := filled(retaining())
	unlabelled.Labels = nil
	unrecorded := filled(retaining())
	unrecorded.Annotations = nil
	disowned := filled(anSFMCToken())
	disowned.OwnerReferences = nil
	deployed := filled(retaining())
	deployed.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "shop",
		UID: "uid-4", Controller: ptr.To(true)}}
	for name, row := range map[string]struct {
		secret *corev1.Secret
		uid    types.UID
	}{
		"owned":                        {filled(anSFMCToken()), "uid-1"},
		"emptied":                      {Target{}.Emptied(anSFMCToken()), "uid-1"},
		"retained":                     {filled(retaining()), "uid-1"},
		"retained and emptied":         {Of(filled(retaining())).Emptied(retaining()), "uid-1"},
		"released":                     {Of(filled(anSFMCToken())).Released(anSFMCToken()), nobody},
		"retained once, and released":  {Of(filled(retaining())).Released(retaining()), nobody},
		"retained by a version before": {byVersionBefore()["a retained Secret"].read(g), ""},
		"retained, without labels":     {unlabelled, "uid-1"},
		"retained, without a record":   {unrecorded, "uid-1"},
		"without an owner":             {disowned, "uid-1"},
		"a Deployment's":               {deployed, ""},
		"nobody's":                     {&corev1.Secret{}, ""},
		"labelled by somebody": {
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Labels: maps.Clone(managed)}}, "",
		},
	} {
		g.Expect(OwnerUID(row.secret)).To(Equal(row.uid), name)
	}
}

func TestASecretIsDeletedWithItsSFMCTokenUnlessItIsRetained(t *testing.T) {
	g := NewWithT(t)
	owner := sfmcTokenOwner("journeys-emea", "uid-1")
	g.Expect(filled(anSFMCToken()).OwnerReferences).To(ConsistOf(owner))
	g.Expect(filled(retaining()).OwnerReferences).To(BeEmpty())
	g.Expect(Of(filled(anSFMCToken())).Record.OwnerUID).To(BeEmpty())
	g.Expect(Of(filled(retaining())).Record.OwnerUID).To(Equal(types.UID("uid-1")))
	switched := Of(filled(anSFMCToken()))
	g.Expect(switched.Filled(retaining(), aToken(), someNotes(), nil)).To(beAs(filled(retaining())))
	switched = Of(filled(retaining()))
	g.Expect(switched.Filled(anSFMCToken(), aToken(), someNotes(), nil)).To(beAs(filled(anSFMCToken())))

	// An SFMCToken that was made anew takes over, and other owners stay.
	config := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "team", UID: "uid-5"}
	inherited := ownedBy(sfmcTokenOwner("journeys-emea", "uid-0"), managed)
	inherited.OwnerReferences = append(inherited.OwnerReferences, config)
	for _, written := range []*corev1.Secret{
		Of(inherited).Filled(anSFMCToken(), aToken(), someNotes(), nil), Of(inherited).Emptied(anSFMCToken()),
	} {
		g.Expect(written.OwnerReferences).To(Equal([]metav1.OwnerReference{config, owner}))
	}
	g.Expect(Of(inherited).Emptied(retaining()).OwnerReferences).To(Equal([]metav1.OwnerReference{config}))
	before := sfmcTokenOwner("journeys-emea", "uid-0")
	g.Expect(inherited.OwnerReferences).To(Equal([]metav1.OwnerReference{before, config}),
		"what was read is left as it is")
}

func TestAReleasedSecretIsEmptyAndBelongsToWhoDoesNotExist(t *testing.T) {
	g := NewWithT(t)
	for _, obj := range []*v1alpha1.SFMCToken{anSFMCToken(), retaining()} {
		released := Of(filled(obj)).Released(obj)
		g.Expect(released.Data).To(BeEmpty())
		g.Expect(Of(released).Token).To(BeNil())
		g.Expect(released.OwnerReferences).To(ConsistOf(
			sfmcTokenOwner("journeys-emea", "00000000-0000-0000-0000-000000000000")))
		g.Expect(Of(released).Released(obj)).To(Equal(released), "it is written once")
	}
}

func TestWhatOthersAddToTheMetadataStaysAndWhatAnEarlierTemplateAddedGoes(t *testing.T) {
	g := NewWithT(t)
	templated := func(label v1alpha1.LabelValue, annotations ...string) *v1alpha1.SFMCToken {
		obj := anSFMCToken()
		metadata := v1alpha1.TargetMetadata{Annotations: map[string]v1alpha1.AnnotationValue{}}
		if label != "" {
			metadata.Labels = map[string]v1alpha1.LabelValue{"team": label}
		}
		for _, key := range annotations {
			metadata.Annotations[key] = "ours"
		}
		obj.Spec.Target = &v1alpha1.Target{Template: &v1alpha1.TargetTemplate{Metadata: metadata}}
		return obj
	}
	secret := filled(templated("emea", "example.com/a", "example.com/b"))
	g.Expect(secret.Labels).To(Equal(map[string]string{"team": "emea", ManagedByLabel: ManagedByValue, ownerLabel: "uid-1"}))
	g.Expect(secret.Annotations).To(HaveKeyWithValue("example.com/a", "ours"))
	secret.ResourceVersion, secret.UID = "42", "uid-6"
	secret.Labels["others"], secret.Annotations["example.com/others"] = "x", "y"
	secret.Labels[ManagedByLabel], secret.Labels["team"] = "somebody", "edited"

	again := Of(secret).Filled(templated("apac", "example.com/b"), aToken(), someNotes(), nil)
	g.Expect(again.Labels).To(Equal(map[string]string{"others": "x", "team": "apac", ManagedByLabel: ManagedByValue, ownerLabel: "uid-1"}))
	delete(again.Annotations, recordAnnotation)
	g.Expect(again.Annotations).To(Equal(map[string]string{"example.com/others": "y", "example.com/b": "ours"}))
	g.Expect(again.ResourceVersion).To(Equal("42"))
	g.Expect(again.UID).To(Equal(types.UID("uid-6")))

	for _, gone := range []*corev1.Secret{Of(secret).Emptied(anSFMCToken()), Of(secret).Released(anSFMCToken())} {
		g.Expect(gone.Labels).To(Equal(map[string]string{"others": "x", ManagedByLabel: ManagedByValue, ownerLabel: "uid-1"}))
		g.Expect(gone.Annotations).To(HaveLen(2))
		g.Expect(gone.Annotations).To(HaveKey("example.com/others"))
		g.Expect(Of(gone).Record.Labels).To(BeEmpty())
	}
	g.Expect(secret.Labels).To(HaveKeyWithValue("team", "edited"), "what was read is left as it is")
}

func TestKeysThatNobodyWantsAnyMoreGo(t *testing.T) {
	g := NewWithT(t)
	further := map[string][]byte{"authorization": []byte("Bearer " + hushToken)}
	secret := Target{}.Filled(anSFMCToken(), aToken(), someNotes(), further)
	g.Expect(secret.Data).To(HaveLen(len(token.Keys) + 1))
	g.Expect(Of(secret).Filled(anSFMCToken(), aToken(), someNotes(), further)).To(Equal(secret))
	secret.Data["added-by-hand"] = []byte("x")
	g.Expect(Of(secret).Filled(anSFMCToken(), aToken(), someNotes(), nil)).To(Equal(filled(anSFMCToken())))
}

func TestASecretThatIsAsItShouldBeIsNotWritten(t *testing.T) {
	g := NewWithT(t)
	for _, obj := range []*v1alpha1.SFMCToken{anSFMCToken(), retaining()} {
		for name, secret := range map[string]*corev1.Secret{"filled": filled(obj), "emptied": Target{}.Emptied(obj)} {
			got := Of(secret)
			again := got.Emptied(obj)
			if got.Token != nil {
				again = got.Filled(obj, got.Token, got.Record.Notes, nil)
			}
			g.Expect(again).To(beAs(secret), name)
		}
	}
}

func TestATemplateThatCantBeRenderedIsForAPersonToMend(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken()
	g.Expect(Render(obj, token.Specimen)).To(BeEmpty())
	obj.Spec.Target = &v1alpha1.Target{Template: &v1alpha1.TargetTemplate{
		Data: map[string]v1alpha1.TemplateText{"authorization": "{{ .TokenType }} {{ .AccessToken }}"},
	}}
	g.Expect(Render(obj, aToken())).To(Equal(map[string][]byte{"authorization": []byte("Bearer " + hushToken)}))
	obj.Spec.Target.Template.Data["authorization"] = "{{ .Token }}"
	got, err := Render(obj, token.Specimen)
	g.Expect(err).To(MatchError(
		HavePrefix("spec.target.template.data, key authorization, line 1: there is no field .Token;")))
	g.Expect(problem.Of(err).Reason).To(Equal(v1alpha1.ReasonTemplateInvalid))
	g.Expect(got).To(BeNil())
}

func TestTheMarksOfASecretTellWhoseItIsAndNothingElse(t *testing.T) {
	g := NewWithT(t)
	foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "journeys-emea", UID: "uid-7", ResourceVersion: "1"}}
	unlabelled := filled(retaining())
	unlabelled.Labels = nil
	for name, secret := range map[string]*corev1.Secret{
		"foreign": foreign, "owned": filled(anSFMCToken()), "retained": filled(retaining()), "unlabelled": unlabelled,
	} {
		full := secret.DeepCopy()
		others := map[string]string{"kubectl.kubernetes.io/last-applied": "a Secret"}
		full.Annotations = replaceKeys(full.Annotations, nil, others)
		full.Labels = replaceKeys(full.Labels, nil, others)
		full.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
		marks := &metav1.PartialObjectMetadata{ObjectMeta: full.ObjectMeta}
		KeepMarks(marks)
		g.Expect(marks.Annotations).NotTo(HaveKey(HavePrefix("kubectl")), name)
		g.Expect(marks.Labels).NotTo(HaveKey(HavePrefix("kubectl")), name)
		g.Expect(marks.ManagedFields).To(BeEmpty(), name)
		g.Expect(marks.UID).To(Equal(secret.UID), name)
		g.Expect(marks.ResourceVersion).To(Equal(secret.ResourceVersion), name)
		g.Expect(Conflict(marks)).To(Equal(Conflict(secret)), name)
		g.Expect(BelongsTo(marks, retaining())).To(Equal(BelongsTo(secret, retaining())), name)
	}
}
