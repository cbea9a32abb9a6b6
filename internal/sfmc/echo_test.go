package sfmc

import (
	"encoding/json"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"pgregory.net/rapid"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestAnEndpointThatEchoesSecretsIsNotRepeated(t *testing.T) {
	server, client, request := standIn(t, sfmctest.Options{})
	token := sfmcToken(t, client, request)
	escaped := strings.NewReplacer("Z", `\u005a`, "j", `\u006a`).Replace
	for name, body := range map[string]string{
		"error":         `{"error":"{{client_secret}}"}`,
		"error, the id": `{"error":"{{client_id}}","error_description":"{{client_id}}"}`,
		"error_description": `{"error":"invalid_client","error_description":"no: ` +
			`{{client_id}}/{{client_secret}} ({{client_secret}}{{client_secret}})"}`,
		"message":              `{"message":"{{client_secret}} of {{client_id}}","errorcode":50200}`,
		"errorcode":            `{"message":"no","errorcode":"{{client_secret}}"}`,
		"errorcode, the whole": `{"message":"no","errorcode":{"id":"{{client_id}}"}}`,
		"JSON escapes":         `{"error":"` + escaped(secret) + `","error_description":"` + escaped(clientID) + `"}`,
		"the request": `{"error":"e","error_description":"got ` +
			`{\"client_id\":\"{{client_id}}\",\"client_secret\":\"{{client_secret}}\"}"}`,
		"a form": `{"error":"e","error_description":"client_id={{client_id}}&client_secret={{client_secret}}"}`,
		"behind a long text": `{"error":"e","error_description":"` + strings.Repeat("x ", 120) +
			`{{client_secret}}{{client_secret}}"}`,
		"the token":                  `{"error":"` + token + `","error_description":"Bearer ` + token + `"}`,
		"the token, in punctuation":  `{"message":"(access_token=` + token + `)","errorcode":"` + token + `"}`,
		"outside the JSON":           `{{client_secret}} {{client_id}} ` + token,
		"unknown fields":             `{"client_secret":"{{client_secret}}","access_token_of":"` + token + `"}`,
		"a name":                     `{"{{client_secret}}":"{{client_id}}"}`,
		"a token response, odd type": `{"access_token":"` + token + `","expires_in":"{{client_secret}}"}`,
		"a token response, odd URL":  `{"access_token":"` + token + `","rest_instance_url":"http://{{client_secret}}"}`,
		"a token response, odd name": `{"access_token":["{{client_secret}}"],"{{client_id}}":1}`,
	} {
		for _, status := range []int{200, 302, 400, 401, 403, 429, 500, 503} {
			t.Run(name+" "+strconv.Itoa(status), func(t *testing.T) {
				g := NewWithT(t)
				headers := map[string]string{"Location": "/?" + secret}
				server.AddFaults(sfmctest.Fault{Status: status, Body: body, Header: headers})
				_, err := client.RequestToken(t.Context(), request)
				g.Expect(err).To(HaveOccurred())
				expectSafe(t, err.Error())
				for i := 0; i+40 <= len(token); i += 40 {
					g.Expect(err.Error()).NotTo(ContainSubstring(token[i : i+40]))
				}
				expectSafe(t, "."+err.Code+err.Description)
			})
		}
	}
}

func sfmcToken(t *testing.T, client *Client, request TokenRequest) string {
	t.Helper()
	token, err := client.RequestToken(t.Context(), request)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return token.AccessToken
}

func TestASecretIsRedactedAlsoAsAURLHasIt(t *testing.T) {
	const odd = "a/b+c&d=e%f#g-0123456789"
	request := TokenRequest{ClientID: clientID, ClientSecret: odd}
	for _, echo := range []string{odd, url.QueryEscape(odd), url.PathEscape(odd)} {
		g := NewWithT(t)
		says := map[string]string{"error": "invalid_client", "error_description": "wrong: " + echo + "."}
		body, err := json.Marshal(says)
		g.Expect(err).NotTo(HaveOccurred())
		failed := refusal(401, 0, body, request)
		g.Expect(failed.Error()).To(HaveSuffix("invalid_client: wrong: [redacted]."))
	}
}

// wordy draws what an endpoint may say, with secrets in it.
func wordy() *rapid.Generator[string] {
	piece := rapid.OneOf(
		rapid.String(),
		rapid.StringMatching(`[a-z ]{0,300}`),
		rapid.SampledFrom([]string{
			secret, clientID, "\n", "\r\n", "\u2028", "\x1b[31m", "\u202e", "\x00", " ", "…", "<b>",
			strings.Repeat("eyJ", 200),
		}),
	)
	return rapid.Map(rapid.SliceOfN(piece, 0, 12), func(pieces []string) string { return strings.Join(pieces, "") })
}

func TestWhateverAnEndpointSaysItsErrorIsOneBoundedLineWithoutSecrets(t *testing.T) {
	request := TokenRequest{AuthHost: "auth.example", ClientID: clientID, ClientSecret: secret}
	errorcode := rapid.OneOf(rapid.Just[any](50200), rapid.Map(wordy(), func(s string) any { return s }))
	rapid.Check(t, func(t *rapid.T) {
		body, err := json.Marshal(map[string]any{
			rapid.SampledFrom([]string{"error", "message"}).Draw(t, "shape"): wordy().Draw(t, "first"),
			"error_description": wordy().Draw(t, "description"),
			"errorcode":         errorcode.Draw(t, "errorcode"),
		})
		if err != nil {
			t.Fatal(err)
		}
		failed := refusal(rapid.IntRange(201, 599).Draw(t, "status"), 0, body, request)
		expectSafe(t, failed.Error())
		if len([]rune(failed.Code)) > 80 || len([]rune(failed.Description)) > maxDescription+1 {
			t.Fatalf("too long: %+v", failed)
		}
	})
}

func TestWhateverTheNetworkSaysIsOneBoundedLineWithoutSecrets(t *testing.T) {
	request := TokenRequest{AuthHost: "auth.example", ClientID: clientID, ClientSecret: secret}
	rapid.Check(t, func(t *rapid.T) {
		err := errorText(wordy().Draw(t, "problem"))
		expectSafe(t, "."+request.networkProblem(err))
		expectSafe(t, "."+request.networkProblem(&net.OpError{Op: "proxyconnect", Net: "tcp", Err: err}))
	})
}

type errorText string

func (e errorText) Error() string { return string(e) }
