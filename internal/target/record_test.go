package target

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

const (
	tenantHost = "mcabcdefghij-0123456789k-lmn.auth.marketingcloudapis.com"
	hushID     = "journeysclientid00000000"
	hushSecret = "Zq7hushThisIsTheSecret99"
	hushToken  = "four.part.token.text"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// aRequest is one for a token of the tenant.
func aRequest() sfmc.TokenRequest {
	return sfmc.TokenRequest{AuthHost: tenantHost, ClientID: hushID, ClientSecret: hushSecret, AccountID: "510004567",
		Scopes: []string{"email_read", "journeys_read"}}
}

// aToken is one that was issued for aRequest.
func aToken() *token.Token {
	held := &token.Token{
		Token: sfmc.Token{
			AccessToken: hushToken, TokenType: "Bearer", GrantedScopes: "email_read",
			RESTInstanceURL: "https://rest.example/", SOAPInstanceURL: "https://soap.example/",
			ExpiresIn: 1079 * time.Second,
		},
		IssuedFor: token.Identify(aRequest()),
		IssuedAt:  noon.Add(123456789), ExpiresAt: noon.Add(123456789 + 1079*time.Second),
	}
	held.Proof = held.Prove(hushSecret)
	return held
}

func anSFMCToken() *v1alpha1.SFMCToken {
	return &v1alpha1.SFMCToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: "marketing", Name: "journeys-emea", UID: "uid-1", Generation: 3},
		Spec: v1alpha1.SFMCTokenSpec{
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "sfmc-package"},
			AccountID:            "510004567",
			Scopes:               []v1alpha1.Scope{"journeys_read", "email_read"},
		},
	}
}

// someNotes are what is known of the credentials.
func someNotes() Notes {
	return Notes{Credentials: "marketing/sfmc-package/uid-2/42", ClientSecretKey: "client_secret",
		ClientSecretExpiresAt: "2027-04-01T00:00:00Z"}
}

// holding is a target Secret with a token, which answers a refresh request.
func holding(held *token.Token) *corev1.Secret {
	obj := anSFMCToken()
	obj.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: "<now> & then"}
	return Target{}.Filled(obj, held, someNotes(), nil)
}

// record writes a record into a Secret as it is.
func record(secret *corev1.Secret, rec Record) {
	encoded, err := json.Marshal(rec)
	if err != nil {
		panic(err)
	}
	secret.Annotations[recordAnnotation] = string(encoded)
}

// reseal does what somebody could who may write the Secret and knows this code, but no client secret.
func reseal(secret *corev1.Secret) { record(secret, recordOf(secret).sealed(secret.Data)) }

// isBelieved tells whether a Secret is taken to hold a token that was issued to an owner of the client secret.
func isBelieved(secret *corev1.Secret) bool {
	held := Of(secret).Token
	return held != nil && held.IsProved(hushSecret)
}

func TestATargetSecretTellsWhatItHolds(t *testing.T) {
	g := NewWithT(t)
	got := Of(holding(aToken()))
	g.Expect(got.Token).To(Equal(aToken()))
	g.Expect(got.Record.Owner).To(Equal("journeys-emea"))
	g.Expect(got.Record.Notes).To(Equal(someNotes()))
	g.Expect(got.Record.RefreshRequest).To(Equal("<now> & then"))
	g.Expect(got.Token.Prove(hushSecret)).To(Equal(got.Token.Proof))
	g.Expect(got.Secret.Data).To(Equal(map[string][]byte{
		"access_token": []byte(hushToken), "token_type": []byte("Bearer"), "expires_at": []byte("2026-03-01T12:17:59Z"),
		"account_id": []byte("510004567"), "scope": []byte("email_read"),
		"rest_instance_url": []byte("https://rest.example/"), "soap_instance_url": []byte("https://soap.example/"),
	}))
}

func TestARecordSurvivesAnyTimeZoneAndTheMonotonicClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := time.FixedZone("", rapid.IntRange(-14*3600, 14*3600).Draw(t, "zone"))
		seconds, nanos := rapid.Int64Range(0, 1<<32).Draw(t, "s"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns")
		issued := aToken()
		issued.IssuedAt = time.Unix(seconds, nanos).In(zone)
		issued.ExpiresIn = time.Duration(rapid.Int64Range(1, 86400).Draw(t, "life")) * time.Second
		issued.ExpiresAt = issued.IssuedAt.Add(issued.ExpiresIn)
		issued.Proof = issued.Prove(hushSecret)
		held := Of(holding(issued)).Token
		switch {
		case held == nil:
			t.Fatal("the token was not found again")
		case !held.IssuedAt.Equal(issued.IssuedAt), !held.ExpiresAt.Equal(issued.ExpiresAt),
			held.ExpiresIn != issued.ExpiresIn, held.Prove(hushSecret) != issued.Proof:
			t.Fatalf("%+v became %+v", issued, held)
		}
	})
	g := NewWithT(t)
	issued := aToken()
	issued.IssuedAt = time.Now()
	issued.ExpiresAt = issued.IssuedAt.Add(issued.ExpiresIn)
	first := holding(issued)
	g.Expect(holding(Of(first).Token).Annotations).To(Equal(first.Annotations), "else it is written again and again")
}

func TestAnEmptiedSecretHoldsNoToken(t *testing.T) {
	g := NewWithT(t)
	secret := Of(holding(aToken())).Emptied(anSFMCToken())
	g.Expect(secret.Data).To(BeEmpty())
	g.Expect(Of(secret).Token).To(BeNil())
	g.Expect(Of(secret).Record.Owner).To(Equal("journeys-emea"))
	g.Expect(Of(secret).Record.Identities()).To(BeEmpty())
	g.Expect(Of(&corev1.Secret{}).Token).To(BeNil())
}

func TestASecretIsFoundByEveryIdentityOfItsToken(t *testing.T) {
	g := NewWithT(t)
	held := aToken()
	g.Expect(IdentitiesOf(holding(held))).To(Equal([]string{held.Identity}))
	notes := someNotes()
	notes.Aliases = []string{"staged"}
	rotating := Target{}.Filled(anSFMCToken(), held, notes, nil)
	g.Expect(IdentitiesOf(rotating)).To(Equal([]string{held.Identity, "staged"}))
	g.Expect(Of(rotating).Record.Identities()).To(Equal(IdentitiesOf(rotating)))
	g.Expect(IdentitiesOf(&corev1.Secret{})).To(BeEmpty())
}

func TestEveryEditOfTheTokensKeysShows(t *testing.T) {
	g := NewWithT(t)
	sound := holding(aToken())
	edits := map[string]func(map[string][]byte){
		"all gone":       func(d map[string][]byte) { clear(d) },
		"values swapped": func(d map[string][]byte) { d["scope"], d["token_type"] = d["token_type"], d["scope"] },
		"a byte moved from one value's end to the next key": func(d map[string][]byte) {
			d["account_id"] = d["account_id"][:8]
			d["7access_token"] = d["access_token"]
			delete(d, "access_token")
		},
	}
	for key := range sound.Data {
		edits[key+" changed"] = func(d map[string][]byte) { d[key] = append(slices.Clone(d[key]), 'x') }
		edits[key+" removed"] = func(d map[string][]byte) { delete(d, key) }
		edits[key+" emptied"] = func(d map[string][]byte) { d[key] = []byte{} }
		edits[key+" renamed"] = func(d map[string][]byte) { d[key+"x"] = d[key]; delete(d, key) }
	}
	for name, edit := range edits {
		secret := sound.DeepCopy()
		edit(secret.Data)
		g.Expect(Of(secret).Token).To(BeNil(), name)
	}
	g.Expect(Of(sound).Token).NotTo(BeNil())
}

func TestKeysFromTemplatesLeaveTheTokenKnown(t *testing.T) {
	g := NewWithT(t)
	secret := holding(aToken())
	for _, value := range []string{"Bearer " + hushToken, "edited by hand", ""} {
		secret.Data["authorization"] = []byte(value)
		g.Expect(Of(secret).Token).To(Equal(aToken()), "else it costs a token request to put this key right")
	}
}

func TestEveryEditOfTheRecordShows(t *testing.T) {
	g := NewWithT(t)
	secret := holding(aToken())
	sound := recordOf(secret)
	g.Expect(sound.sealed(secret.Data)).To(Equal(sound))
	edits := 0
	for name, edit := range fieldEdits(reflect.TypeFor[Record]()) {
		edited, forged := sound, secret.DeepCopy()
		edit(reflect.ValueOf(&edited).Elem())
		g.Expect(edited).NotTo(Equal(sound), name)
		record(forged, edited)
		edits++
		if name == "OwnerUID" { // the version before doesn't know it, and must find its seal intact
			g.Expect(Of(forged).Token).To(Equal(aToken()), "OwnerUID is outside of the seal")
			continue
		}
		g.Expect(Of(forged).Token).To(BeNil(), name)
	}
	g.Expect(edits).To(Equal(19), "every field was tried")
	for _, text := range []string{"", "{", "[]", "null", `"text"`, `{"issuedAt":"yesterday"}`, "\xff"} {
		forged := secret.DeepCopy()
		forged.Annotations[recordAnnotation] = text
		g.Expect(Of(forged)).To(Equal(Target{Secret: forged}), text)
	}
}

// fieldEdits are functions that change one field each of a struct of the type, by the field's name.
func fieldEdits(of reflect.Type) map[string]func(reflect.Value) {
	edits := map[string]func(reflect.Value){}
	for _, field := range reflect.VisibleFields(of) {
		if field.Anonymous {
			continue
		}
		edits[field.Name] = func(v reflect.Value) {
			switch at := v.FieldByIndex(field.Index); value := at.Interface().(type) {
			case []string:
				at.Set(reflect.ValueOf(append(slices.Clone(value), "x")))
			case time.Time:
				at.Set(reflect.ValueOf(value.Add(1)))
			default:
				at.SetString(at.String() + "x") // panics if this test doesn't know the type
			}
		}
	}
	return edits
}

func TestARecordGivesNoSecretAway(t *testing.T) {
	g := NewWithT(t)
	encoded := holding(aToken()).Annotations[recordAnnotation]
	for _, secret := range []string{hushSecret, hushID, hushToken} {
		g.Expect(encoded).NotTo(ContainSubstring(secret))
	}
}

func TestEveryKeyOfATokenIsSealedAndProved(t *testing.T) {
	sound := holding(aToken())
	NewWithT(t).Expect(sound.Data).To(HaveLen(len(token.Keys)), "every key is tried")
	for _, key := range token.Keys {
		t.Run(key.Name, func(t *testing.T) {
			g := NewWithT(t)
			for name, value := range map[string][]byte{
				"changed": append(slices.Clone(sound.Data[key.Name]), 'x'), "emptied": {}, "removed": nil,
			} {
				forged := sound.DeepCopy()
				if forged.Data[key.Name] = value; value == nil {
					delete(forged.Data, key.Name)
				}
				g.Expect(Of(forged).Token).To(BeNil(), name)
				reseal(forged)
				if key.Derived != nil && value == nil {
					// As a version has it that doesn't know the key: nothing is wrong, and it is put in with the next write.
					g.Expect(isBelieved(forged)).To(BeTrue(), "%s, and sealed again", name)
					again := Of(forged).Filled(anSFMCToken(), aToken(), Of(forged).Record.Notes, nil)
					g.Expect(again.Data).To(Equal(sound.Data))
					continue
				}
				g.Expect(isBelieved(forged)).To(BeFalse(), "%s, and sealed again", name)
			}
		})
	}
	g := NewWithT(t)
	reseal(sound)
	g.Expect(isBelieved(sound)).To(BeTrue(), "sealed again as it is")
}

func TestAForgedRecordThatIsSealedAgainIsNotBelieved(t *testing.T) {
	g := NewWithT(t)
	// The keys that follow from the record are made to fit, as a forger would.
	edits := fieldEdits(reflect.TypeFor[Record]())
	for _, field := range []string{"Identity", "AuthHost", "ClientIDHash", "AccountID", "RequestedScopes",
		"IssuedAt", "ExpiresAt", "Proof"} {
		forged := holding(aToken())
		edited := recordOf(forged)
		edits[field](reflect.ValueOf(&edited).Elem())
		forged.Data["account_id"] = []byte(edited.AccountID)
		forged.Data["expires_at"] = []byte(edited.ExpiresAt.Format(time.RFC3339))
		record(forged, edited.sealed(forged.Data))
		g.Expect(Of(forged).Token).NotTo(BeNil(), "the seal keeps nobody out who knows how to make it: %s", field)
		g.Expect(isBelieved(forged)).To(BeFalse(), field)
	}
}

func TestANewKeyOfTheTableIsWrittenSealedAndOfferedToTemplates(t *testing.T) {
	g := NewWithT(t)
	before := token.Keys
	t.Cleanup(func() { token.Keys = before })
	token.Keys = append(slices.Clone(before), token.Key{
		Name: "auth_host", Field: "AuthHost", Derived: func(t *token.Token) string { return t.AuthHost },
	})
	obj := anSFMCToken()
	obj.Spec.Target = &v1alpha1.Target{Template: &v1alpha1.TargetTemplate{
		Data: map[string]v1alpha1.TemplateText{"token-url": "https://{{ .AuthHost }}/v2/token"},
	}}
	_, err := Render(obj, token.Specimen)
	g.Expect(err).NotTo(HaveOccurred())
	further, err := Render(obj, aToken())
	g.Expect(err).NotTo(HaveOccurred())
	secret := Target{}.Filled(obj, aToken(), someNotes(), further)
	g.Expect(secret.Data).To(HaveKeyWithValue("auth_host", []byte(tenantHost)))
	g.Expect(secret.Data).To(HaveKeyWithValue("token-url", []byte("https://"+tenantHost+"/v2/token")))
	g.Expect(Of(secret).Token).To(Equal(aToken()))
	g.Expect(isBelieved(secret)).To(BeTrue())

	for _, value := range []string{strings.ToUpper(tenantHost), "evil.example", ""} {
		forged := secret.DeepCopy()
		forged.Data["auth_host"] = []byte(value)
		g.Expect(Of(forged).Token).To(BeNil(), value)
		reseal(forged)
		g.Expect(Of(forged).Token).To(BeNil(), "sealed again: %s", value)
	}
}

func TestWhatIsShownOfARecordIsNoDigest(t *testing.T) {
	g := NewWithT(t)
	secret := &metav1.PartialObjectMetadata{}
	g.Expect(PublicRecordOf(secret)).To(BeNil())
	secret.Annotations = map[string]string{recordAnnotation: `{"owner": "journeys", "identity": "canary1", "clientIDHash": "canary2",
		"accountID": "510004567", "proof": "canary3", "aliases": ["canary4"], "refused": "canary5", "seal": "canary6", "fromALaterVersion": "canary7"}`}
	shown := string(mustMarshal(PublicRecordOf(secret)))
	g.Expect(shown).To(MatchJSON(`{"owner": "journeys", "accountID": "510004567"}`))
	secret.Annotations[recordAnnotation] = "canary8"
	g.Expect(string(mustMarshal(PublicRecordOf(secret)))).NotTo(ContainSubstring("canary"))
}
