package controller

import (
	"errors"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
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

func TestCredentialsAreReadUnderTheNamesOfOAuth(t *testing.T) {
	want := credentials{authHost: tenantHost, clientID: hushID, clientSecret: hushSecret}
	for name, data := range map[string]map[string][]byte{
		"as shown":                          keys(nil),
		"without a trailing slash":          keys(map[string][]byte{"auth_base_uri": []byte("https://" + tenantHost)}),
		"with the newlines of --from-file":  keys(map[string][]byte{"client_id": []byte(hushID + "\n"), "client_secret": []byte(hushSecret + "\r\n"), "auth_base_uri": []byte("https://" + tenantHost + "/\n")}),
		"with a browser's spaces":           keys(map[string][]byte{"client_id": []byte(" " + hushID), "client_secret": []byte("\t" + hushSecret + "\u00a0"), "auth_base_uri": []byte("  https://" + tenantHost + "  ")}),
		"with keys that mean nothing to us": keys(map[string][]byte{"comment": []byte("by Ann\nof marketing"), "client_secret_staged": {}}),
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got, err := parseCredentials(data, nil)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got).To(Equal(want))
		})
	}
}

func TestCredentialsThatCantBeUsedAreRefusedByTheNameOfTheKey(t *testing.T) {
	const middle = " has a space, a line break or a character that is not ASCII in the middle"
	for name, row := range map[string]struct {
		data map[string][]byte
		says string
	}{
		"nothing":                  {nil, "key client_id is missing; key client_secret is missing; key auth_base_uri is missing"},
		"no client id":             {keys(map[string][]byte{"client_id": nil}), "key client_id is missing"},
		"no client secret":         {keys(map[string][]byte{"client_secret": nil}), "key client_secret is missing"},
		"no address":               {keys(map[string][]byte{"auth_base_uri": nil}), "key auth_base_uri is missing"},
		"other names":              {map[string][]byte{"clientId": []byte(hushID), "clientSecret": []byte(hushSecret)}, "key client_id is missing; key client_secret is missing; key auth_base_uri is missing"},
		"an empty secret":          {keys(map[string][]byte{"client_secret": {}}), "key client_secret is empty"},
		"a newline as secret":      {keys(map[string][]byte{"client_secret": []byte("\n")}), "key client_secret is empty"},
		"a space in the middle":    {keys(map[string][]byte{"client_id": []byte(hushID + " " + hushSecret)}), "key client_id" + middle},
		"two lines":                {keys(map[string][]byte{"client_secret": []byte(hushSecret + "\n" + hushSecret)}), "key client_secret" + middle},
		"a byte order mark":        {keys(map[string][]byte{"client_id": []byte("\ufeff" + hushID)}), "key client_id" + middle},
		"no text":                  {keys(map[string][]byte{"client_secret": {0, 1, 2}}), "key client_secret" + middle},
		"no UTF-8":                 {keys(map[string][]byte{"client_secret": {'a', 0xff, 'b'}}), "key client_secret" + middle},
		"an umlaut":                {keys(map[string][]byte{"client_secret": []byte("geheimschlüssel")}), "key client_secret" + middle},
		"a line break in the URI":  {keys(map[string][]byte{"auth_base_uri": []byte("https://" + tenantHost + "\n/v2")}), "key auth_base_uri" + middle},
		"too long":                 {keys(map[string][]byte{"client_id": []byte(strings.Repeat("x", 1025))}), "key client_id is longer than 1024 bytes"},
		"two keys":                 {keys(map[string][]byte{"client_id": {}, "client_secret": nil}), "key client_id is empty; key client_secret is missing"},
		"the secret as address":    {keys(map[string][]byte{"auth_base_uri": []byte(hushSecret)}), "key auth_base_uri: it must be a whole URL that starts with https://; copy"},
		"the REST address":         {keys(map[string][]byte{"auth_base_uri": []byte("https://" + strings.Replace(tenantHost, ".auth.", ".rest.", 1))}), "key auth_base_uri: it is the REST or SOAP base URI"},
		"another host":             {keys(map[string][]byte{"auth_base_uri": []byte("https://evil.example/")}), "key auth_base_uri: its host is not a Marketing Cloud authentication host"},
		"a secret in the user":     {keys(map[string][]byte{"auth_base_uri": []byte("https://" + hushID + ":" + hushSecret + "@" + tenantHost)}), "key auth_base_uri: it must not contain a user name or password"},
		"an address without https": {keys(map[string][]byte{"auth_base_uri": []byte("http://" + tenantHost)}), "key auth_base_uri: it must start with https://"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got, err := parseCredentials(row.data, []string{"gateway.example"})
			g.Expect(err).To(MatchError(HavePrefix(row.says)))
			g.Expect(got).To(BeZero())
			for _, value := range []string{hushID, hushSecret, "evil", "geheim", tenantHost} {
				g.Expect(err.Error()).NotTo(ContainSubstring(value))
			}
			var badHost *sfmc.HostNotAllowedError
			g.Expect(errors.As(err, &badHost)).To(Equal(strings.HasPrefix(row.says, "key auth_base_uri:")))
		})
	}
}

func TestAHostOfAllowAuthHostIsUsedAsItStands(t *testing.T) {
	g := NewWithT(t)
	data := keys(map[string][]byte{"auth_base_uri": []byte("https://gateway.example:8443/")})
	got, err := parseCredentials(data, []string{"gateway.example:8443"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got.authHost).To(Equal("gateway.example:8443"))
	_, err = parseCredentials(data, []string{"gateway.example"})
	g.Expect(err).To(HaveOccurred())
}

func TestTheScopesAreAskedForAsTheSpecHasThem(t *testing.T) {
	g := NewWithT(t)
	c := credentials{authHost: tenantHost, clientID: hushID, clientSecret: hushSecret}
	active := sfmc.TokenRequest{AuthHost: tenantHost, ClientID: hushID, ClientSecret: hushSecret, AccountID: "510004567", Scopes: []string{"z", "a"}}
	spec := &v1alpha1.SFMCTokenSpec{AccountID: "510004567", Scopes: []v1alpha1.Scope{"z", "a"}}
	g.Expect(c.tokenRequests(spec)).To(Equal(map[string]sfmc.TokenRequest{"client_secret": active}))
	g.Expect(c.tokenRequests(&v1alpha1.SFMCTokenSpec{})["client_secret"].Scopes).To(BeEmpty())

	staged := active
	staged.ClientSecret = "staged"
	c.clientSecretStaged = "staged"
	g.Expect(c.tokenRequests(spec)).To(Equal(map[string]sfmc.TokenRequest{"client_secret": active, "client_secret_staged": staged}))
	c.clientSecretStaged = hushSecret // moved, and not removed yet
	g.Expect(c.tokenRequests(spec)).To(HaveLen(1))
}

func TestErrorsOfCredentialsNameTheSecretAndWhatToWrite(t *testing.T) {
	g := NewWithT(t)
	g.Expect(&credentialsNotFoundError{types.NamespacedName{Namespace: "marketing", Name: "sfmc-package"}}).To(MatchError(
		`the credentials Secret "sfmc-package" does not exist in namespace "marketing"; create it with the keys client_id, client_secret and auth_base_uri`))
	cause := errors.New("key client_id is missing")
	g.Expect(&credentialsInvalidError{name: "sfmc-package", err: cause}).To(And(
		MatchError(`the credentials Secret "sfmc-package" can't be used: key client_id is missing`), MatchError(cause)))
}

func TestTheCredentialsSecretIsInItsVersion(t *testing.T) {
	g := NewWithT(t)
	for version, secret := range map[string]types.NamespacedName{
		"": {}, "a/b": {}, "marketing/sfmc-package/uid/42": {Namespace: "marketing", Name: "sfmc-package"}, "m/a.b/uid/1": {Namespace: "m", Name: "a.b"},
	} {
		g.Expect(record{notes: notes{Credentials: version}}.credentialsSecret()).To(Equal(secret))
	}
}

func FuzzParseCredentials(f *testing.F) {
	f.Add([]byte(hushID), []byte(hushSecret), []byte("https://"+tenantHost+"/"))
	f.Add([]byte(hushID+"\n"), []byte("\ufeff"+hushSecret), []byte(hushSecret))
	f.Add([]byte{}, []byte{0xff}, []byte("https://"+hushID+":"+hushSecret+"@"+tenantHost))
	f.Add([]byte("a b"), []byte(strings.Repeat("s", 1025)), []byte("https://gateway.example"))
	// Whatever the values are, these texts and no others come of them.
	fixed := []string{"key client_id", "key client_secret", "key auth_base_uri", " is missing", " is empty", " is longer than 1024 bytes",
		" has a space, a line break or a character that is not ASCII in the middle", "; "}
	f.Fuzz(func(t *testing.T, id, secret, uri []byte) {
		got, err := parseCredentials(map[string][]byte{"client_id": id, "client_secret": secret, "auth_base_uri": uri}, []string{"gateway.example"})
		if err == nil {
			for _, value := range []string{got.clientID, got.clientSecret, got.authHost} {
				if value == "" || len(value) > maxCredential || strings.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' }) {
					t.Fatalf("%q was let through", value)
				}
			}
			return
		}
		if got != (credentials{}) {
			t.Fatalf("credentials beside an error: %+v", got)
		}
		text := err.Error()
		var badHost *sfmc.HostNotAllowedError
		if errors.As(err, &badHost) {
			text = strings.Replace(text, "key auth_base_uri: "+badHost.Problem, "", 1) // fuzzed in package sfmc
		}
		for _, part := range fixed {
			text = strings.ReplaceAll(text, part, "")
		}
		if text != "" {
			t.Fatalf("%q may quote a value: %s", text, err)
		}
	})
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
		got, err := parseCredentials(keys(map[string][]byte{"client_secret_expires_at": []byte(text)}), nil)
		g.Expect(err).NotTo(HaveOccurred(), text)
		g.Expect(got.expiresAt).To(Equal(want), text)
	}
}
