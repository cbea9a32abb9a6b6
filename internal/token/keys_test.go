package token

import (
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestTheKeysOfATokenAreTheDocumentedOnes(t *testing.T) {
	g := NewWithT(t)
	g.Expect(aToken().Data()).To(Equal(map[string][]byte{
		"access_token": []byte("four.part.token.text"), "token_type": []byte("Bearer"), "scope": []byte("email_read"),
		"expires_at": []byte("2026-03-01T12:17:59Z"), "account_id": []byte("510004567"),
		"rest_instance_url": []byte("https://rest.example/"), "soap_instance_url": []byte("https://soap.example/"),
	}))
	token := aToken()
	token.GrantedScopes = "email_read email_send"
	g.Expect(token.Fields()).To(Equal(map[string]any{
		"AccessToken": "four.part.token.text", "TokenType": "Bearer",
		"Scope": "email_read email_send", "Scopes": []string{"email_read", "email_send"},
		"ExpiresAt": "2026-03-01T12:17:59Z", "AccountID": "510004567",
		"RESTInstanceURL": "https://rest.example/", "SOAPInstanceURL": "https://soap.example/",
	}))
}

func TestEachKeyHasANameAFieldAndOneSource(t *testing.T) {
	g := NewWithT(t)
	names, fields, sources := map[string]bool{}, map[string]bool{}, map[*string]string{}
	token := aToken()
	for _, key := range Keys {
		g.Expect(key.Name).NotTo(BeEmpty())
		g.Expect(names).NotTo(HaveKey(key.Name))
		names[key.Name] = true
		for _, field := range []string{key.Field, key.ListField} {
			if field != "" {
				g.Expect(fields).NotTo(HaveKey(field), key.Name)
				fields[field] = true
			}
		}
		g.Expect(key.Field).NotTo(BeEmpty(), key.Name)
		isAnswered, isDerived := key.Answer != nil, key.Derived != nil
		g.Expect(isAnswered).NotTo(Equal(isDerived), "%s: it comes with the answer, or follows from it", key.Name)
		if key.Answer != nil {
			g.Expect(sources).NotTo(HaveKey(key.Answer(token)), "%s: another key has its value", key.Name)
			sources[key.Answer(token)] = key.Name
		}
	}
}

func TestEachKeyIsInTheSecretAndInTemplates(t *testing.T) {
	g := NewWithT(t)
	token := aToken()
	data, fields := token.Data(), token.Fields()
	count := 0
	for _, key := range Keys {
		g.Expect(data).To(HaveKey(key.Name))
		g.Expect(data[key.Name]).NotTo(BeEmpty())
		g.Expect(fields).To(HaveKeyWithValue(key.Field, string(data[key.Name])), "the same text in both")
		count++
		if key.ListField != "" {
			g.Expect(fields).To(HaveKeyWithValue(key.ListField, strings.Fields(string(data[key.Name]))))
			count++
		}
	}
	g.Expect(data).To(HaveLen(len(Keys)))
	g.Expect(fields).To(HaveLen(count))
}

func TestAChangedValueOfAnyKeyIsNoticed(t *testing.T) {
	for _, key := range Keys {
		t.Run(key.Name, func(t *testing.T) {
			g := NewWithT(t)
			for edit, value := range map[string][]byte{
				"changed": append(aToken().Data()[key.Name], 'x'), "emptied": {}, "removed": nil,
			} {
				data := aToken().Data()
				if data[key.Name] = value; value == nil {
					delete(data, key.Name)
				}
				read := aToken()
				isSound := read.ReadData(data)
				// What follows from the token is compared, if it is there: a version that doesn't know the key writes none.
				g.Expect(isSound).To(Equal(key.Answer != nil || value == nil), edit)
				if key.Answer != nil {
					g.Expect(*key.Answer(read)).To(Equal(string(value)))
					g.Expect(read.IsProved(hushSecret)).To(BeFalse(), "%s: what was answered is proved", edit)
				}
			}
			if key.Answer == nil {
				return
			}
			forged := aToken()
			*key.Answer(forged) += "x"
			g.Expect(forged.IsProved(hushSecret)).To(BeFalse())
			g.Expect(forged.Data()).To(HaveKeyWithValue(key.Name, append(aToken().Data()[key.Name], 'x')))
		})
	}
}

func TestATokenIsReadBackAsItWasWritten(t *testing.T) {
	g := NewWithT(t)
	for _, written := range []*Token{aToken(), living("", noon, time.Minute), Specimen} {
		// What the record says of it, while the data has the rest.
		read := &Token{IssuedFor: written.IssuedFor, IssuedAt: written.IssuedAt, ExpiresAt: written.ExpiresAt}
		read.ExpiresIn, read.Proof = written.ExpiresIn, written.Proof
		data := written.Data()
		data["authorization"] = []byte("from a template")
		g.Expect(read.ReadData(data)).To(BeTrue())
		g.Expect(read).To(Equal(written))
	}
	// The time of day is in UTC, wherever the operator runs.
	elsewhere := aToken()
	elsewhere.ExpiresAt = elsewhere.ExpiresAt.In(time.FixedZone("", 5*3600))
	g.Expect(elsewhere.Data()).To(Equal(aToken().Data()))
	g.Expect(elsewhere.ReadData(aToken().Data())).To(BeTrue())
}

func TestAKeyWithoutAValueIsLeftOutExceptScope(t *testing.T) {
	g := NewWithT(t)
	for _, key := range Keys {
		if key.Answer == nil {
			continue
		}
		token := aToken()
		*key.Answer(token) = ""
		if key.Name == "scope" {
			g.Expect(token.Data()).To(HaveKeyWithValue(key.Name, BeEmpty()))
		} else {
			g.Expect(token.Data()).NotTo(HaveKey(key.Name))
		}
		g.Expect(token.Fields()).To(HaveKeyWithValue(key.Field, ""), "a template may name it all the same")
	}
	unit := aToken()
	unit.AccountID = ""
	g.Expect(unit.Data()).NotTo(HaveKey("account_id"))
	var none *Token
	g.Expect(none.Data()).To(And(BeEmpty(), Not(BeNil())), "an emptied Secret gets further keys")
}

func TestTheKeysThatChangeAreThoseWithAnotherValueInTheNextToken(t *testing.T) {
	g := NewWithT(t)
	held, next := aToken(), aToken()
	next.AccessToken = "the.next.token.text"
	next.IssuedAt, next.ExpiresAt = held.IssuedAt.Add(779*time.Second), held.ExpiresAt.Add(779*time.Second)
	for _, key := range Keys {
		isOther := !slices.Equal(held.Data()[key.Name], next.Data()[key.Name])
		g.Expect(key.Changes).To(Equal(isOther), key.Name)
	}
}

func TestTheSpecimenIsAsLargeAsARealToken(t *testing.T) {
	g := NewWithT(t)
	g.Expect(Specimen.Data()).To(HaveLen(len(Keys)))
	for name, value := range Specimen.Data() {
		g.Expect(value).NotTo(BeEmpty(), name)
	}
	g.Expect(Specimen.Data()["access_token"]).To(HaveLen(2 << 10))
	g.Expect(Specimen.Fields()).To(HaveKeyWithValue("Scopes", HaveLen(100)))
	g.Expect(Specimen.Fields()).To(HaveKeyWithValue("ExpiresAt", "2006-01-02T15:04:05Z"))
}
