package controller

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// aRequest is one for a token of the tenant.
func aRequest() sfmc.TokenRequest {
	return sfmc.TokenRequest{AuthHost: tenantHost, ClientID: hushID, ClientSecret: hushSecret, AccountID: "510004567", Scopes: []string{"email_read", "journeys_read"}}
}

// aToken is one that was issued for aRequest.
func aToken() *issued {
	token := &issued{
		Token: sfmc.Token{AccessToken: "four.part.token.text", TokenType: "Bearer", Scope: "email_read",
			RESTInstanceURL: "https://rest.example/", SOAPInstanceURL: "https://soap.example/", ExpiresIn: 1079 * time.Second},
		issuedFor: identify(aRequest()),
		IssuedAt:  noon.Add(123456789), ExpiresAt: noon.Add(123456789 + 1079*time.Second),
	}
	token.Proof = token.prove(hushSecret)
	return token
}

func anSFMCToken() *v1alpha1.SFMCToken {
	return &v1alpha1.SFMCToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: "marketing", Name: "journeys-emea", UID: "uid-1", Generation: 3},
		Spec: v1alpha1.SFMCTokenSpec{CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "sfmc-package"}, AccountID: "510004567",
			Scopes: []v1alpha1.Scope{"journeys_read", "email_read"}},
	}
}

func holding(token *issued) *corev1.Secret {
	return compose(target{}, anSFMCToken(), token, record{notes: notes{Credentials: "marketing/sfmc-package/uid/42"}, RefreshRequest: "<now> & then"})
}

func TestATargetSecretTellsWhatItHolds(t *testing.T) {
	g := NewWithT(t)
	got := targetFrom(holding(aToken()))
	g.Expect(got.held).To(Equal(aToken()))
	g.Expect(got.record.Owner).To(Equal("journeys-emea"))
	g.Expect(got.record.Credentials).To(Equal("marketing/sfmc-package/uid/42"))
	g.Expect(got.record.RefreshRequest).To(Equal("<now> & then"))
	g.Expect(got.held.prove(hushSecret)).To(Equal(got.held.Proof))
	g.Expect(holding(aToken()).Data).To(Equal(map[string][]byte{
		"access_token": []byte("four.part.token.text"), "token_type": []byte("Bearer"), "expires_at": []byte("2026-03-01T12:17:59Z"),
		"account_id": []byte("510004567"), "scope": []byte("email_read"),
		"rest_instance_url": []byte("https://rest.example/"), "soap_instance_url": []byte("https://soap.example/"),
	}))
}

func TestARecordSurvivesAnyTimeZoneAndTheMonotonicClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := time.FixedZone("", rapid.IntRange(-14*3600, 14*3600).Draw(t, "zone"))
		token := aToken()
		token.IssuedAt = time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, "s"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns")).In(zone)
		token.ExpiresIn = anyLife.Draw(t, "life")
		token.ExpiresAt = token.IssuedAt.Add(token.ExpiresIn)
		token.Proof = token.prove(hushSecret)
		held := targetFrom(holding(token)).held
		if held == nil {
			t.Fatal("the token was not found again")
		}
		if !held.IssuedAt.Equal(token.IssuedAt) || !held.ExpiresAt.Equal(token.ExpiresAt) || held.ExpiresIn != token.ExpiresIn || held.prove(hushSecret) != token.Proof {
			t.Fatalf("%+v became %+v", token, held)
		}
	})
}

func TestAnEmptiedSecretHoldsNoToken(t *testing.T) {
	g := NewWithT(t)
	secret := holding(nil)
	g.Expect(secret.Data).To(BeEmpty())
	g.Expect(targetFrom(secret).held).To(BeNil())
	g.Expect(targetFrom(secret).record.Owner).To(Equal("journeys-emea"))
	g.Expect(targetFrom(&corev1.Secret{}).held).To(BeNil())
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
		g.Expect(targetFrom(secret).held).To(BeNil(), name)
	}
	g.Expect(targetFrom(sound).held).NotTo(BeNil())
}

func TestKeysFromTemplatesLeaveTheTokenKnown(t *testing.T) {
	g := NewWithT(t)
	secret := holding(aToken())
	for _, value := range []string{"Bearer four.part.token.text", "edited by hand", ""} {
		secret.Data["authorization"] = []byte(value)
		g.Expect(targetFrom(secret).held).To(Equal(aToken()), "else it costs a token request to put this key right")
	}
}

func TestEveryKeyOfATokenIsSealed(t *testing.T) {
	g := NewWithT(t)
	g.Expect(slices.Sorted(maps.Keys(aToken().data()))).To(Equal(tokenKeys))
}

func TestEveryEditOfTheRecordShows(t *testing.T) {
	g := NewWithT(t)
	secret := holding(aToken())
	sound := recordOf(secret.Annotations)
	g.Expect(sound.sealed(secret.Data)).To(Equal(sound))
	edits := 0
	for name, edit := range fieldEdits(reflect.ValueOf(&sound).Elem()) {
		edited := sound
		edit(reflect.ValueOf(&edited).Elem())
		g.Expect(edited).NotTo(Equal(sound), name)
		encoded, err := json.Marshal(edited)
		g.Expect(err).NotTo(HaveOccurred())
		forged := secret.DeepCopy()
		forged.Annotations[recordAnnotation] = string(encoded)
		g.Expect(targetFrom(forged).held).To(BeNil(), name)
		edits++
	}
	g.Expect(edits).To(Equal(18), "every field was tried")
	for _, text := range []string{"", "{", "[]", "null", `"text"`, `{"issuedAt":"yesterday"}`, "\xff"} {
		forged := secret.DeepCopy()
		forged.Annotations[recordAnnotation] = text
		g.Expect(targetFrom(forged)).To(Equal(target{secret: forged}), text)
	}
}

// fieldEdits are functions that change one field each of a struct like v, by the field's name.
func fieldEdits(v reflect.Value) map[string]func(reflect.Value) {
	edits := map[string]func(reflect.Value){}
	for _, field := range reflect.VisibleFields(v.Type()) {
		if field.Anonymous {
			continue
		}
		edits[field.Name] = func(v reflect.Value) {
			switch at := v.FieldByIndex(field.Index); value := at.Interface().(type) {
			case string:
				at.SetString(value + "x")
			case []string:
				at.Set(reflect.ValueOf(append(slices.Clone(value), "x")))
			case time.Time:
				at.Set(reflect.ValueOf(value.Add(1)))
			case time.Duration:
				at.SetInt(int64(value) + 1)
			default:
				panic(field.Name + " has a type that this test doesn't know")
			}
		}
	}
	return edits
}

func TestAnIdentityDiffersWhenAnyPartOfTheRequestDiffers(t *testing.T) {
	g := NewWithT(t)
	request := aRequest()
	edits := fieldEdits(reflect.ValueOf(&request).Elem())
	g.Expect(slices.Sorted(maps.Keys(edits))).To(Equal([]string{"AccountID", "AuthHost", "ClientID", "ClientSecret", "Scopes"}))
	seen := map[string]string{identify(request).Identity: "unchanged"}
	for name, edit := range edits {
		edited := aRequest()
		edit(reflect.ValueOf(&edited).Elem())
		identity := identify(edited).Identity
		g.Expect(seen).NotTo(HaveKey(identity), name)
		seen[identity] = name
	}
}

func TestTheOrderOfScopesMakesNoDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scopes := rapid.SliceOfDistinct(rapid.StringMatching(`[a-z_]{1,12}`), rapid.ID).Draw(t, "scopes")
		one, other := aRequest(), aRequest()
		one.Scopes, other.Scopes = scopes, rapid.Permutation(scopes).Draw(t, "permuted")
		sent := slices.Clone(other.Scopes)
		if !reflect.DeepEqual(identify(one), identify(other)) {
			t.Fatal("two orders, two identities")
		}
		if !identify(one).fits(one.AccountID, other.Scopes) {
			t.Fatal("the token doesn't fit the scopes it was asked for with")
		}
		if !slices.Equal(sent, other.Scopes) {
			t.Fatal("the scopes to send were put into another order")
		}
	})
}

func TestNoTwoListsOfFieldsLookTheSame(t *testing.T) {
	fields := rapid.SliceOfN(rapid.OneOf(rapid.StringMatching(`[0-9:,a]{0,4}`), rapid.String()), 0, 4)
	rapid.Check(t, func(t *rapid.T) {
		one, other := fields.Draw(t, "one"), fields.Draw(t, "other")
		if same := slices.Equal(one, other); same != (hashOf(one...) == hashOf(other...)) {
			t.Fatalf("%q and %q", one, other)
		}
	})
	g := NewWithT(t)
	g.Expect(hashOf("ab", "c")).NotTo(Equal(hashOf("a", "bc")))
	g.Expect(hashOf("a,b")).NotTo(Equal(hashOf("a", "b")))
	g.Expect(hashOf("a,1:b")).NotTo(Equal(hashOf("a", "b")))
	g.Expect(hashOf("1:a,", "")).NotTo(Equal(hashOf("", "1:a,")))
	moved := aRequest()
	moved.AccountID, moved.Scopes = "", []string{"510004567", "email_read", "journeys_read"}
	g.Expect(identify(moved).Identity).NotTo(Equal(identify(aRequest()).Identity))
	joined := aRequest()
	joined.Scopes = []string{"email_read journeys_read"}
	g.Expect(identify(joined).Identity).NotTo(Equal(identify(aRequest()).Identity))
}

func TestARecordGivesNoSecretAway(t *testing.T) {
	g := NewWithT(t)
	encoded := holding(aToken()).Annotations[recordAnnotation]
	for _, secret := range []string{hushSecret, hushID, "four.part.token.text"} {
		g.Expect(encoded).NotTo(ContainSubstring(secret))
	}
}

func TestAProofTakesTheClientSecretAndCoversTheToken(t *testing.T) {
	g := NewWithT(t)
	token := aToken()
	g.Expect(token.prove(hushSecret)).To(Equal(token.Proof))
	for _, secret := range []string{"", "Zq7hushThisIsTheSecret98", hushID, token.Identity, token.Proof} {
		g.Expect(token.prove(secret)).NotTo(Equal(token.Proof))
	}
	g.Expect(uncovered("AccessToken", "TokenType", "Scope", "RESTInstanceURL", "SOAPInstanceURL", "Identity", "IssuedAt", "ExpiresAt")).To(BeEmpty())
}

func TestAProofCoversWhatTheTokenWasIssuedFor(t *testing.T) {
	g := NewWithT(t)
	g.Expect(uncovered("AuthHost", "ClientIDHash", "AccountID", "Scopes")).To(BeEmpty(), "else a copied record with another business unit is believed")
}

// uncovered are those of the fields that can be changed without the proof becoming wrong.
func uncovered(fields ...string) []string {
	var found []string
	token := aToken()
	edits := fieldEdits(reflect.ValueOf(token).Elem())
	for _, field := range fields {
		forged := *token
		edits[field](reflect.ValueOf(&forged).Elem())
		if forged.prove(hushSecret) == token.Proof {
			found = append(found, field)
		}
	}
	return found
}

func TestATokenFitsTheBusinessUnitAndTheScopesItWasAskedForWith(t *testing.T) {
	g := NewWithT(t)
	is := identify(aRequest())
	g.Expect(is.fits("510004567", []string{"journeys_read", "email_read"})).To(BeTrue())
	g.Expect(is.fits("510004567", []string{"email_read"})).To(BeFalse())
	g.Expect(is.fits("510004567", []string{"journeys_read", "email_read", "sms_send"})).To(BeFalse())
	g.Expect(is.fits("510004567", nil)).To(BeFalse())
	g.Expect(is.fits("", []string{"journeys_read", "email_read"})).To(BeFalse())
	g.Expect(identify(sfmc.TokenRequest{}).fits("", nil)).To(BeTrue())
}

func TestAClientIsItsHostAndItsID(t *testing.T) {
	g := NewWithT(t)
	client := identify(aRequest()).client()
	same := aRequest()
	same.ClientSecret, same.AccountID, same.Scopes = "rotated", "1", nil
	g.Expect(identify(same).client()).To(Equal(client))
	for _, edit := range []func(*sfmc.TokenRequest){
		func(r *sfmc.TokenRequest) { r.ClientID += "x" },
		func(r *sfmc.TokenRequest) { r.AuthHost += ":8443" },
	} {
		other := aRequest()
		edit(&other)
		g.Expect(identify(other).client()).NotTo(Equal(client))
	}
}
