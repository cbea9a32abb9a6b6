package target

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// The version before and the one after read the same target Secrets: an upgrade, or going back, must cost no token
// request. What is here was written by version 0.1. It must never be made anew from today's code.

const (
	// writtenIssue is what version 0.1 recorded of aToken.
	writtenIssue = `
		"owner": "journeys-emea",
		"identity": "f7de47aa2d8c858706d3f18303ae826519cbd6240edcd8b01fc0f6123629e1fa",
		"authHost": "mcabcdefghij-0123456789k-lmn.auth.marketingcloudapis.com",
		"clientIDHash": "8d9521e1ba66bfcf7a38c3b41bf69fe04d59b4ab24c235451e42a325730d6dfe",
		"accountID": "510004567",
		"scopes": ["email_read", "journeys_read"],
		"issuedAt": "2026-03-01T12:00:00.123456789Z",
		"expiresAt": "2026-03-01T12:17:59.123456789Z",
		"proof": "a95511417db1515ee655714b0572c112ec5e61cc1ae6b13452de8f09f34c011d",
		"credentials": "marketing/sfmc-package/uid-2/42",`
	writtenSecretKey = `
		"clientSecretKey": "client_secret",
		"clientSecretExpiresAt": "2027-04-01T00:00:00Z",`
)

// writtenData is what version 0.1 wrote of aToken.
func writtenData() map[string]string {
	return map[string]string{
		"access_token":      "four.part.token.text",
		"account_id":        "510004567",
		"expires_at":        "2026-03-01T12:17:59Z",
		"rest_instance_url": "https://rest.example/",
		"scope":             "email_read",
		"soap_instance_url": "https://soap.example/",
		"token_type":        "Bearer",
	}
}

// written is a target Secret of version 0.1, and what it was made of.
type written struct {
	obj    *v1alpha1.SFMCToken
	held   *token.Token // nil if it was emptied
	notes  Notes
	record string
	data   map[string]string
	// added is what today's version adds to the record.
	added string
}

func byVersionBefore() map[string]written {
	retained := anSFMCToken()
	retained.Spec.Target = &v1alpha1.Target{DeletionPolicy: v1alpha1.DeletionPolicyRetain}

	staged, retired, rotating := aRequest(), aRequest(), someNotes()
	staged.ClientSecret, retired.ClientSecret = "Zq7hushThisIsTheNext1999", "Zq7hushThisIsTheLast1999"
	rotating.Aliases = []string{token.Identify(staged).Identity}
	rotating.Refused = token.Identify(retired).Identity

	asked := anSFMCToken()
	asked.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: "<now> & then"}
	asked.Spec.Target = &v1alpha1.Target{Template: &v1alpha1.TargetTemplate{Metadata: v1alpha1.TargetMetadata{
		Labels:      map[string]v1alpha1.LabelValue{"team": "emea", "app": "journeys"},
		Annotations: map[string]v1alpha1.AnnotationValue{"example.com/contact": "emea@example.com"},
	}}}

	ofPackage, tokenOfPackage := anSFMCToken(), aToken()
	ofPackage.Spec.AccountID, ofPackage.Spec.Scopes = "", nil
	tokenOfPackage.IssuedFor = token.Identify(sfmc.TokenRequest{
		AuthHost: tenantHost, ClientID: hushID, ClientSecret: hushSecret,
	})
	tokenOfPackage.GrantedScopes = ""
	tokenOfPackage.Proof = tokenOfPackage.Prove(hushSecret)
	dataOfPackage := writtenData()
	delete(dataOfPackage, "account_id")
	dataOfPackage["scope"] = ""

	return map[string]written{
		"a usual token": {obj: anSFMCToken(), held: aToken(), notes: someNotes(), data: writtenData(),
			record: writtenIssue + writtenSecretKey + `
				"seal": "4b30576a6e3ec6595e07044bdae184fadb45e25e89e78718250d15708dc45f02"`},
		"an emptied Secret": {obj: anSFMCToken(), data: map[string]string{},
			record: `
				"owner": "journeys-emea",
				"seal": "0fa6ff161698cdf0a6710df4396a891785e66b0050903fb779882261a8578e75"`},
		"a retained Secret": {obj: retained, held: aToken(), notes: someNotes(), data: writtenData(),
			record: writtenIssue + writtenSecretKey + `
				"seal": "4b30576a6e3ec6595e07044bdae184fadb45e25e89e78718250d15708dc45f02"`,
			added: `"ownerUID": "uid-1"`},
		"during a rotation": {obj: anSFMCToken(), held: aToken(), notes: rotating, data: writtenData(),
			record: writtenIssue + `
				"aliases": ["4dfbfa9cce997b9652dbd527d9ba0fec59466943af8baed798561dca32e4e0f4"],
				"refused": "6e7257f218542d2120a5572d65a09142645f89c40e2177a108eab2f53ff9575a",` + writtenSecretKey + `
				"seal": "caa9911c339e7962491cb5552242a6eaab2a32277f281c72b0217876a0d99290"`},
		"with a refresh request and a template": {obj: asked, held: aToken(), notes: someNotes(), data: writtenData(),
			record: writtenIssue + writtenSecretKey + `
				"refreshRequest": "\u003cnow\u003e \u0026 then",
				"labels": ["app", "team"],
				"annotations": ["example.com/contact"],
				"seal": "78268ca2a605ed856533dcebd486107b05009ce2c9bb34c782aa084a5c992307"`},
		"of the package's own unit, with all scopes, and unread": {
			obj: ofPackage, held: tokenOfPackage, data: dataOfPackage,
			record: `
				"owner": "journeys-emea",
				"identity": "0cdc761bedf554595f8d5904b80452a143c9d75e32dda65bccdbf881e2474b83",
				"authHost": "mcabcdefghij-0123456789k-lmn.auth.marketingcloudapis.com",
				"clientIDHash": "8d9521e1ba66bfcf7a38c3b41bf69fe04d59b4ab24c235451e42a325730d6dfe",
				"issuedAt": "2026-03-01T12:00:00.123456789Z",
				"expiresAt": "2026-03-01T12:17:59.123456789Z",
				"proof": "6e95a30b5128d39fb76088b5c8254ca23ac0cc286eb7bf12bf3a5f714a0b2011",
				"seal": "1505c3ffe06dd6a93c22da17e5346b95794169cdd5710fef8c2b382e8724ead3"`},
	}
}

// annotation returns the record as it stands in the Secret, which has no spaces.
func annotation(g *WithT, fields ...string) string {
	var compact bytes.Buffer
	g.Expect(json.Compact(&compact, []byte("{"+strings.Join(fields, ",")+"}"))).To(Succeed())
	return compact.String()
}

// read is the Secret as it was written.
func (w written) read(g *WithT) *corev1.Secret {
	secret := Target{}.Emptied(w.obj)
	delete(secret.Labels, ownerLabel) // which is younger
	secret.Annotations[recordAnnotation] = annotation(g, w.record)
	secret.Data = map[string][]byte{}
	for key, value := range w.data {
		secret.Data[key] = []byte(value)
	}
	return secret
}

// write is the Secret as this version writes it over another one.
func (w written) write(before Target) *corev1.Secret {
	if w.held == nil {
		return before.Emptied(w.obj)
	}
	return before.Filled(w.obj, w.held, w.notes, nil)
}

func TestWhatTheVersionBeforeWroteIsReadWithItsToken(t *testing.T) {
	for name, row := range byVersionBefore() {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got, err := Claim(row.read(g), row.obj)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got.Token).To(Equal(row.held))
			g.Expect(got.Record.Notes).To(Equal(row.notes))
			if row.held != nil {
				g.Expect(got.Token.IsProved(hushSecret)).To(BeTrue())
				g.Expect(got.Record.Identities()).To(Equal(append([]string{row.held.Identity}, row.notes.Aliases...)))
			}
			if row.added == "" {
				want := got.Secret.DeepCopy()
				want.Labels[ownerLabel] = string(row.obj.UID)
				g.Expect(row.write(got)).To(Equal(want), "an upgrade adds the mark and nothing else")
			}
		})
	}
}

func TestTheVersionBeforeFindsEveryByteThatItWouldHaveWritten(t *testing.T) {
	for name, row := range byVersionBefore() {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			want := annotation(g, row.record)
			if row.added != "" { // behind all else, and the version before seals what it knows
				want = annotation(g, row.record, row.added)
			}
			for _, before := range []Target{{}, Of(row.read(g))} {
				secret := row.write(before)
				g.Expect(secret.Annotations[recordAnnotation]).To(Equal(want))
				data := map[string]string{}
				for key, value := range secret.Data {
					data[key] = string(value)
				}
				g.Expect(data).To(Equal(row.data))
			}
		})
	}
}

func TestARecordOfTheVersionAfterIsReadAndKept(t *testing.T) {
	const field, value = `"future": {"a": [1, "b"]}`, `{"a":[1,"b"]}`
	for name, row := range byVersionBefore() {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			fields := []string{row.record, field} // new fields stand at the end
			if row.added != "" {
				fields = []string{row.record, row.added, field}
			}
			secret := row.read(g)
			secret.Annotations[recordAnnotation] = annotation(g, fields...)
			secret.Labels[ownerLabel] = string(row.obj.UID)
			got := Of(secret)
			g.Expect(got.Token).To(Equal(row.held))
			again := row.write(got)
			for _, kept := range []*corev1.Secret{again, got.Emptied(row.obj), got.Released(row.obj)} {
				var all map[string]json.RawMessage
				g.Expect(json.Unmarshal([]byte(kept.Annotations[recordAnnotation]), &all)).To(Succeed())
				g.Expect(all).To(HaveKeyWithValue("future", json.RawMessage(value)))
			}
			g.Expect(Of(again).Token).To(Equal(row.held))
			g.Expect(row.write(Of(again))).To(Equal(again))
			g.Expect(again.Annotations[recordAnnotation]).To(Equal(secret.Annotations[recordAnnotation]),
				"else every Secret is written at each change of leader between the versions")
			g.Expect(again).To(Equal(secret))
		})
	}
}

func TestWhatOnlyLooksLikeAFieldOfTheRecordIsNotKept(t *testing.T) {
	// Go reads fields without regard to case. One that is absent would come back under another spelling, and with it
	// the seal would be broken for ever.
	for _, edit := range []string{`"Refused": "x"`, `"REFUSED": "x"`, `"refuſed": "x"`, `"refreshrequest": "x"`,
		`"ALIASES": ["x"]`, `"OwnerUID": "x"`} {
		t.Run(edit, func(t *testing.T) {
			g := NewWithT(t)
			row := byVersionBefore()["a usual token"]
			secret := row.read(g)
			secret.Annotations[recordAnnotation] = annotation(g, row.record, edit)
			again := Of(row.write(Of(secret)))
			g.Expect(again.Token).To(Equal(row.held), "the edit is put right")
			g.Expect(again.Record.OwnerUID).To(BeEmpty())
		})
	}
}
