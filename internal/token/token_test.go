package token

import (
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"
	"pgregory.net/rapid"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

const (
	tenantHost = "mcabcdefghij-0123456789k-lmn.auth.marketingcloudapis.com"
	hushID     = "journeysclientid00000000"
	hushSecret = "Zq7hushThisIsTheSecret99"
)

// aRequest is one for a token of the tenant.
func aRequest() sfmc.TokenRequest {
	return sfmc.TokenRequest{
		AuthHost: tenantHost, ClientID: hushID, ClientSecret: hushSecret,
		AccountID: "510004567", Scopes: []string{"email_read", "journeys_read"},
	}
}

// aToken is one that was issued for aRequest.
func aToken() *Token {
	token := &Token{
		Token: sfmc.Token{
			AccessToken: "four.part.token.text", TokenType: "Bearer", GrantedScopes: "email_read",
			RESTInstanceURL: "https://rest.example/", SOAPInstanceURL: "https://soap.example/",
			ExpiresIn: 1079 * time.Second,
		},
		IssuedFor: Identify(aRequest()),
		IssuedAt:  noon.Add(123456789), ExpiresAt: noon.Add(123456789 + 1079*time.Second),
	}
	token.Proof = token.Prove(hushSecret)
	return token
}

// The version before this one computed these digests, and reads and writes the same records: one that differs parts all
// target Secrets from their tokens, and asks for all tokens anew at once.
func TestIdentitiesAndProofsAreThoseOfTheVersionBefore(t *testing.T) {
	const clientIDHash = "8d9521e1ba66bfcf7a38c3b41bf69fe04d59b4ab24c235451e42a325730d6dfe"
	bare := &Token{
		Token: sfmc.Token{AccessToken: "t", TokenType: "Bearer", ExpiresIn: time.Minute},
		IssuedFor: Identify(
			sfmc.TokenRequest{AuthHost: "auth.example:8443", ClientID: hushID, ClientSecret: hushSecret}),
		IssuedAt: noon, ExpiresAt: noon.Add(time.Minute),
	}
	for name, row := range map[string]struct {
		token           *Token
		identity, proof string
	}{
		"of a business unit, with scopes": {aToken(),
			"f7de47aa2d8c858706d3f18303ae826519cbd6240edcd8b01fc0f6123629e1fa",
			"a95511417db1515ee655714b0572c112ec5e61cc1ae6b13452de8f09f34c011d"},
		"of the package's business unit, with nothing that can be left out": {bare,
			"526c275038cb93bfb0b1e0febc250561302dd729dd4f6e517fe1bda43f206b4e",
			"c95647f56f67c89887f630000527d6a92d477df97c3258cc567c07ab4e998178"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(row.token.Identity).To(Equal(row.identity))
			g.Expect(row.token.ClientIDHash).To(Equal(clientIDHash))
			g.Expect(row.token.Prove(hushSecret)).To(Equal(row.proof))
		})
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
	g.Expect(slices.Sorted(maps.Keys(edits))).To(
		Equal([]string{"AccountID", "AuthHost", "ClientID", "ClientSecret", "Scopes"}))
	seen := map[string]string{Identify(request).Identity: "unchanged"}
	for name, edit := range edits {
		edited := aRequest()
		edit(reflect.ValueOf(&edited).Elem())
		identity := Identify(edited).Identity
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
		if !reflect.DeepEqual(Identify(one), Identify(other)) {
			t.Fatal("two orders, two identities")
		}
		if !Identify(one).Fits(one.AccountID, other.Scopes) {
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
		if same := slices.Equal(one, other); same != (Hash(one...) == Hash(other...)) {
			t.Fatalf("%q and %q", one, other)
		}
	})
	g := NewWithT(t)
	g.Expect(Hash("ab", "c")).NotTo(Equal(Hash("a", "bc")))
	g.Expect(Hash("a,b")).NotTo(Equal(Hash("a", "b")))
	g.Expect(Hash("a,1:b")).NotTo(Equal(Hash("a", "b")))
	g.Expect(Hash("1:a,", "")).NotTo(Equal(Hash("", "1:a,")))
	moved := aRequest()
	moved.AccountID, moved.Scopes = "", []string{"510004567", "email_read", "journeys_read"}
	g.Expect(Identify(moved).Identity).NotTo(Equal(Identify(aRequest()).Identity))
	joined := aRequest()
	joined.Scopes = []string{"email_read journeys_read"}
	g.Expect(Identify(joined).Identity).NotTo(Equal(Identify(aRequest()).Identity))
}

func TestAProofTakesTheClientSecret(t *testing.T) {
	g := NewWithT(t)
	token := aToken()
	g.Expect(token.Prove(hushSecret)).To(Equal(token.Proof))
	g.Expect(token.IsProved(hushSecret)).To(BeTrue())
	for _, secret := range []string{"", "Zq7hushThisIsTheSecret98", hushID, token.Identity, token.Proof} {
		g.Expect(token.Prove(secret)).NotTo(Equal(token.Proof))
		g.Expect(token.IsProved(secret)).To(BeFalse())
	}
	for _, proof := range []string{"", token.Identity, token.Proof + "x", token.Proof[:63]} {
		forged := aToken()
		forged.Proof = proof
		g.Expect(forged.IsProved(hushSecret)).To(BeFalse())
	}
}

func TestAProofCoversTheTokenAndWhatItWasIssuedFor(t *testing.T) {
	g := NewWithT(t)
	var uncovered []string
	token := aToken()
	edits := fieldEdits(reflect.ValueOf(token).Elem())
	for field, edit := range edits {
		forged := *token
		edit(reflect.ValueOf(&forged).Elem())
		if forged.Prove(hushSecret) == token.Proof {
			uncovered = append(uncovered, field)
		}
	}
	// ExpiresIn is what is between the two times, which are covered.
	g.Expect(uncovered).To(ConsistOf("ExpiresIn", "Proof"),
		"else a copied record with another business unit, or another token in it, is believed")
	g.Expect(edits).To(HaveLen(14), "every field was tried")
}

func TestAProofIsTheSameInAnyTimeZoneAndWithoutTheMonotonicClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := time.FixedZone("", rapid.IntRange(-14*3600, 14*3600).Draw(t, "zone"))
		token := aToken()
		token.IssuedAt = clock.RealClock{}.Now().Add(durations(0, 1000*time.Hour, 1).Draw(t, "ahead"))
		token.ExpiresAt = token.IssuedAt.Add(anyLife.Draw(t, "life"))
		read := *token
		read.IssuedAt, read.ExpiresAt = token.IssuedAt.Round(0).In(zone), token.ExpiresAt.Round(0).In(zone)
		if token.Prove(hushSecret) != read.Prove(hushSecret) {
			t.Fatalf("%s and %s have two proofs", token.IssuedAt, read.IssuedAt)
		}
	})
}

func TestWhatATokenWasIssuedForGivesNoSecretAway(t *testing.T) {
	g := NewWithT(t)
	token := aToken()
	for _, text := range []string{token.Identity, token.AuthHost, token.ClientIDHash, token.AccountID, token.Client(),
		token.Proof} {
		for _, secret := range []string{hushSecret, hushID, token.AccessToken} {
			g.Expect(text).NotTo(ContainSubstring(secret))
		}
	}
}

func TestATokenFitsTheBusinessUnitAndTheScopesItWasAskedForWith(t *testing.T) {
	g := NewWithT(t)
	is := Identify(aRequest())
	g.Expect(is.Fits("510004567", []string{"journeys_read", "email_read"})).To(BeTrue())
	g.Expect(is.Fits("510004567", []string{"email_read"})).To(BeFalse())
	g.Expect(is.Fits("510004567", []string{"journeys_read", "email_read", "sms_send"})).To(BeFalse())
	g.Expect(is.Fits("510004567", nil)).To(BeFalse())
	g.Expect(is.Fits("", []string{"journeys_read", "email_read"})).To(BeFalse())
	g.Expect(Identify(sfmc.TokenRequest{}).Fits("", nil)).To(BeTrue())
}

func TestAClientIsItsHostAndItsID(t *testing.T) {
	g := NewWithT(t)
	client := Identify(aRequest()).Client()
	same := aRequest()
	same.ClientSecret, same.AccountID, same.Scopes = "rotated", "1", nil
	g.Expect(Identify(same).Client()).To(Equal(client))
	for _, edit := range []func(*sfmc.TokenRequest){
		func(r *sfmc.TokenRequest) { r.ClientID += "x" },
		func(r *sfmc.TokenRequest) { r.AuthHost += ":8443" },
	} {
		other := aRequest()
		edit(&other)
		g.Expect(Identify(other).Client()).NotTo(Equal(client))
	}
}
