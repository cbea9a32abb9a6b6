package credentials

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

const (
	tenantHost = "mcabcdefghij-0123456789k-lmn.auth.marketingcloudapis.com"
	hushID     = "journeysclientid00000000"
	hushSecret = "Zq7hushThisIsTheSecret99"
)

// keys are a credentials Secret's data, with some keys changed; a nil value leaves the key out.
func keys(changes map[string][]byte) map[string][]byte {
	data := map[string][]byte{
		"client_id":     []byte(hushID),
		"client_secret": []byte(hushSecret),
		"auth_base_uri": []byte("https://" + tenantHost + "/"),
	}
	for key, value := range changes {
		if data[key] = value; value == nil {
			delete(data, key)
		}
	}
	return data
}

// with are the same with one key changed.
func with(key, value string) map[string][]byte { return keys(map[string][]byte{key: []byte(value)}) }

func encoded(value string) string { return base64.StdEncoding.EncodeToString([]byte(value)) }

// other are so many keys with other names.
func other(count int) map[string][]byte {
	data := map[string][]byte{}
	for i := range count {
		data[string(rune('a'+i))] = nil
	}
	return data
}

// without are the same without a key.
func without(key string) map[string][]byte { return keys(map[string][]byte{key: nil}) }

func TestCredentialsAreReadUnderTheNamesOfOAuth(t *testing.T) {
	want := Credentials{authHost: tenantHost, clientID: hushID, clientSecret: hushSecret}
	for name, data := range map[string]map[string][]byte{
		"as shown":                 keys(nil),
		"without a trailing slash": with("auth_base_uri", "https://"+tenantHost),
		"with the newlines of --from-file": keys(map[string][]byte{
			"client_id": []byte(hushID + "\n"), "client_secret": []byte(hushSecret + "\r\n"),
			"auth_base_uri": []byte("https://" + tenantHost + "/\n"),
		}),
		"with a browser's spaces": keys(map[string][]byte{
			"client_id": []byte(" " + hushID), "client_secret": []byte("\t" + hushSecret + "\u00a0"),
			"auth_base_uri": []byte("  https://" + tenantHost + "  "),
		}),
		"with keys that mean nothing to us": keys(map[string][]byte{
			"comment": []byte("by Ann\nof marketing"), "client_secret_staged": {},
		}),
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got, err := parse(data, nil)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got).To(Equal(want))
		})
	}
}

func TestCredentialsThatCantBeUsedAreRefusedByTheNameOfTheKey(t *testing.T) {
	const allMissing = "key client_id is missing; key client_secret is missing; key auth_base_uri is missing"
	type row struct {
		data map[string][]byte
		says string
	}
	address := func(uri, says string) row { return row{with("auth_base_uri", uri), "key auth_base_uri" + says} }
	secret := func(value, says string) row { return row{with("client_secret", value), "key client_secret" + says} }
	for name, row := range map[string]row{
		"nothing":          {nil, allMissing + "; there are no keys at all"},
		"no client id":     {without("client_id"), "key client_id is missing"},
		"no client secret": {without("client_secret"), "key client_secret is missing"},
		"no address":       {without("auth_base_uri"), "key auth_base_uri is missing"},
		"other names": {
			map[string][]byte{"clientId": []byte(hushID), "clientSecret": []byte(hushSecret)},
			allMissing + "; keys with other names are clientId, clientSecret",
		},
		"many other names":      {other(12), allMissing + "; keys with other names are a, b, c, d, e, f, g, h, i, j and 2 more"},
		"an empty secret":       secret("", " is empty"),
		"a newline as secret":   secret("\n", " is empty"),
		"a space in the middle": {with("client_id", hushID+" "+hushSecret), "key client_id has a space as character 25 of 49"},
		"two lines":             secret(hushSecret+"\r\n"+hushSecret, " has a line break as character 25 of 50"),
		"a byte order mark": {
			with("client_id", "\ufeff"+hushID),
			"key client_id has a byte order mark (U+FEFF), which can't be seen, as character 1 of 25",
		},
		"a zero-width space": secret(hushSecret[:5]+"\u200b"+hushSecret[5:],
			" has a zero-width space (U+200B), which can't be seen, as character 6 of 25"),
		"one at the end": secret(hushSecret+"\u2060",
			" has a word joiner (U+2060), which can't be seen, as character 25 of 25"),
		"another invisible one": secret("ab\u2063c", " has a character that can't be seen (U+2063) as character 3 of 4"),
		"no text":               secret("\x01\x02", " has a character that can't be seen (U+0001) as character 1 of 2"),
		"UTF-16":                secret("\xff\xfea\x00b\x00", " is no text, or one that was saved as UTF-16: save it as UTF-8"),
		"no UTF-8":              secret("a\xffb", " has a byte that is no UTF-8 as character 2 of 3"),
		"an umlaut":             secret("geheimschlüssel", " has a character that is not ASCII as character 11 of 15"),
		"a replacement":         secret("a\ufffd", " has a character that is not ASCII as character 2 of 2"),
		"quotes":                secret(`"`+hushSecret+`"`, " has quotes around it: take them away"),
		"single quotes":         address("'https://"+tenantHost+"'", " has quotes around it: take them away"),
		"printed quotes":        secret("“"+hushSecret+"”", " has quotes around it: take them away"),
		"half a quote":          secret(`"`+hushSecret+"ü", " has a character that is not ASCII as character 26 of 26"),
		"encoded twice":         secret(encoded(hushSecret), " was encoded twice in Base64: "),
		"encoded with its line": {with("client_id", encoded(hushID+"\n")), "key client_id was encoded twice in Base64: "},
		"the address encoded":   address(encoded("https://"+tenantHost), " was encoded twice in Base64: "),
		"a staged umlaut": {
			with("client_secret_staged", "geheimschlüssel"),
			"key client_secret_staged has a character that is not ASCII as character 11 of 15",
		},
		"a line break in the URI": address("https://"+tenantHost+"\n/v2",
			fmt.Sprintf(" has a line break as character %d of %d", len(tenantHost)+9, len(tenantHost)+12)),
		"too long": {
			with("client_id", strings.Repeat("x", 1025)), "key client_id is longer than 1024 bytes",
		},
		"two keys": {
			keys(map[string][]byte{"client_id": {}, "client_secret": nil}),
			"key client_id is empty; key client_secret is missing",
		},
		"the secret as address": address(hushSecret, ": it must be a whole URL that starts with https://; copy"),
		"the REST address": address("https://"+strings.Replace(tenantHost, ".auth.", ".rest.", 1),
			": it is the REST or SOAP base URI"),
		"another host": address("https://evil.example/", ": its host is not a Marketing Cloud authentication host"),
		"a secret in the user": address("https://"+hushID+":"+hushSecret+"@"+tenantHost,
			": it must not contain a user name or password"),
		"an address without https": address("http://"+tenantHost, ": it must start with https://"),
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got, err := parse(row.data, []string{"gateway.example"})
			g.Expect(err).To(MatchError(HavePrefix(row.says)))
			g.Expect(got).To(BeZero())
			for _, value := range []string{hushID, hushSecret, "evil", "geheim", tenantHost} {
				g.Expect(err.Error()).NotTo(ContainSubstring(value))
			}
			reason := v1alpha1.ReasonCredentialsInvalid
			if strings.HasPrefix(row.says, "key auth_base_uri:") {
				reason = v1alpha1.ReasonHostNotAllowed
				g.Expect(err).To(MatchError(isHostNotAllowed, "the host isn't allowed"))
			}
			g.Expect(problem.Of(err).Reason).To(Equal(reason))
		})
	}
}

func TestAHostOfAllowAuthHostIsUsedAsItStands(t *testing.T) {
	g := NewWithT(t)
	data := with("auth_base_uri", "https://gateway.example:8443/")
	got, err := parse(data, []string{"gateway.example:8443"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got.authHost).To(Equal("gateway.example:8443"))
	_, err = parse(data, []string{"gateway.example"})
	g.Expect(err).To(HaveOccurred())
}

func TestTheScopesAreAskedForAsTheSpecHasThem(t *testing.T) {
	g := NewWithT(t)
	c := Credentials{authHost: tenantHost, clientID: hushID, clientSecret: hushSecret}
	active := sfmc.TokenRequest{
		AuthHost: tenantHost, ClientID: hushID, ClientSecret: hushSecret,
		AccountID: "510004567", Scopes: []string{"z", "a"},
	}
	obj := &v1alpha1.SFMCToken{Spec: v1alpha1.SFMCTokenSpec{AccountID: "510004567", Scopes: []v1alpha1.Scope{"z", "a"}}}
	g.Expect(c.Requests(obj)).To(Equal([]sfmc.TokenRequest{active}))
	g.Expect(c.Requests(&v1alpha1.SFMCToken{})).To(HaveExactElements(HaveField("Scopes", BeEmpty())))

	staged := active
	staged.ClientSecret = "staged"
	g.Expect(SecretKeys).To(Equal([]string{"client_secret", "client_secret_staged"}))
	c.clientSecretStaged = "staged"
	g.Expect(c.Requests(obj)).To(Equal([]sfmc.TokenRequest{active, staged}), "the active one first")
	c.clientSecretStaged = hushSecret // moved, and not removed yet
	g.Expect(c.Requests(obj)).To(Equal([]sfmc.TokenRequest{active}))
}

func TestTheExpiryOfAClientSecretIsADateOrATime(t *testing.T) {
	g := NewWithT(t)
	for text, want := range map[string]string{
		"":                          "",
		"2027-03-31\n":              "2027-04-01T00:00:00Z", // a date's day is its last
		"2027-03-31T12:30:00+02:00": "2027-03-31T10:30:00Z",
		"31.3.2027":                 "unreadable",
		"2027-02-30":                "unreadable",
	} {
		got, err := parse(with("client_secret_expires_at", text), nil)
		g.Expect(err).NotTo(HaveOccurred(), text)
		g.Expect(got.ExpiresAt).To(Equal(want), text)
	}
}

func TestARefusalOfAnExpiredClientSecretSaysThatItHasExpiredAndNothingElseDoes(t *testing.T) {
	g := NewWithT(t)
	end := time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)
	const expiresAt = "2027-04-01T00:00:00Z"
	refused := problem.New(v1alpha1.ReasonRequestRefused, errors.New("status 401"))
	refused.Failures, refused.RetryAt = 3, end.Add(time.Minute)
	g.Expect(Explain(refused, expiresAt, end.Add(-1))).To(BeIdenticalTo(refused))
	told := Explain(refused, expiresAt, end)
	g.Expect(told).To(MatchError("status 401; client_secret_expires_at says that the secret expired on 2027-04-01"))
	g.Expect(problem.Of(told)).To(BeIdenticalTo(refused), "it means the same")
	for _, unsaid := range []string{"", unreadable} {

		g.Expect(Explain(refused, unsaid, end.AddDate(100, 0, 0))).To(BeIdenticalTo(refused), unsaid)
	}
	for _, reason := range []v1alpha1.ProblemReason{
		v1alpha1.ReasonThrottled, v1alpha1.ReasonEndpointUnavailable, v1alpha1.ReasonUnreadableAnswer,
	} {
		other := problem.New(reason, errors.New("status 429"))
		g.Expect(Explain(other, expiresAt, end)).To(BeIdenticalTo(other), string(reason))
	}
}

func FuzzParseCredentials(f *testing.F) {
	f.Add([]byte(hushID), []byte(hushSecret), []byte("https://"+tenantHost+"/"))
	f.Add([]byte(hushID+"\n"), []byte("\ufeff"+hushSecret), []byte(hushSecret))
	f.Add([]byte{}, []byte{0xff}, []byte("https://"+hushID+":"+hushSecret+"@"+tenantHost))
	f.Add([]byte("a b"), []byte(strings.Repeat("s", 1025)), []byte("https://gateway.example"))
	// Whatever the values are, these texts and no others come of them.
	fixed := []string{"key client_id", "key client_secret", "key auth_base_uri", " is missing", " is empty",
		" is longer than 1024 bytes", " is no text, or one that was saved as UTF-16: save it as UTF-8",
		" has quotes around it: take them away",
		" was encoded twice in Base64: under data it is encoded once, under stringData not at all", "; "}
	strange := regexp.MustCompile(` has (a space|a line break|a byte that is no UTF-8|a character that is not ASCII|` +
		`a character that can't be seen \(U\+[0-9A-F]+\)|[a-z -]+ \(U\+[0-9A-F]{4}\), which can't be seen,)` +
		` as character \d+ of \d+`)
	f.Fuzz(func(t *testing.T, id, secret, uri []byte) {
		data := map[string][]byte{"client_id": id, "client_secret": secret, "auth_base_uri": uri}
		got, err := parse(data, []string{"gateway.example"})
		if err == nil {
			for _, value := range []string{got.clientID, got.clientSecret, got.authHost} {
				isOdd := func(c rune) bool { return c <= ' ' || c > '~' }
				if value == "" || len(value) > maxLength || strings.ContainsFunc(value, isOdd) {
					t.Fatalf("%q was let through", value)
				}
			}
			return
		}
		if got != (Credentials{}) {
			t.Fatalf("credentials beside an error: %+v", got)
		}
		text, badHost := err.Error(), hostNotAllowed(err)
		if badHost != nil {
			text = strings.Replace(text, "key auth_base_uri: "+badHost.Problem, "", 1) // fuzzed in package sfmc
		}
		text = strange.ReplaceAllString(text, "")
		for _, part := range fixed {
			text = strings.ReplaceAll(text, part, "")
		}
		if text != "" {
			t.Fatalf("%q may quote a value: %s", text, err)
		}
	})
}
