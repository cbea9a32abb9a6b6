package sfmctest

import (
	"math"
	"net/http"
	"strconv"
	"time"
)

// Refusal names a documented or expected answer other than a token.
type Refusal string

// The refusals of the token endpoint.
const (
	InvalidClient        Refusal = "invalid-client"         // 401: wrong secret, package disabled
	UnknownClient        Refusal = "unknown-client"         // 401
	LegacyPackage        Refusal = "legacy-package"         // 401
	AccountNotEnabled    Refusal = "account-not-enabled"    // 401: business unit not enabled on the package
	AccountForbidden     Refusal = "account-forbidden"      // 403: the same, as it is to be expected too
	UnsupportedGrantType Refusal = "unsupported-grant-type" // 400
	InvalidRequest       Refusal = "invalid-request"        // 400: a missing field, or one of the wrong type
	InvalidScope         Refusal = "invalid-scope"          // 400
	RateLimited          Refusal = "rate-limited"           // 429, errorcode 50100, Retry-After
	Blocked              Refusal = "blocked"                // 429, errorcode 50200, no Retry-After
	InternalError        Refusal = "internal-error"         // 500
	Unavailable          Refusal = "unavailable"            // 503, errorcode 50300, Retry-After

	methodNotAllowed     Refusal = "method-not-allowed"
	unsupportedMediaType Refusal = "unsupported-media-type"
)

const documentation = "https://developer.salesforce.com/docs"

// defaultRetryAfter is the documentation's example.
const defaultRetryAfter = 5 * time.Second

// refusals holds the answers that are the same each time. Those of unknown
// wording have plausible ones; clients must classify by status.
var refusals = map[Refusal]answer{
	// The first three texts are seen live. The legacy one goes on after what is
	// recorded here.
	InvalidClient: oauthRefusal(http.StatusUnauthorized, "invalid_client", `Client authentication failed. Make sure that the client ID and client secret are valid and that the package is installed and enabled.`),
	UnknownClient: oauthRefusal(http.StatusUnauthorized, "invalid_client", `Invalid client ID. Use the client ID in Marketing Cloud Installed Packages.`),
	LegacyPackage: oauthRefusal(http.StatusUnauthorized, "invalid_client", `This integration is not eligible to use the /v2/token endpoint because the integration was created in a legacy package.`),
	// Body not recorded, status documented. invalid_client is what RFC 6749 has
	// for a 401, and the harder case for a client that tries another secret on it.
	AccountNotEnabled: oauthRefusal(http.StatusUnauthorized, "invalid_client", `The package is not enabled for the business unit that account_id names.`),
	AccountForbidden:  oauthRefusal(http.StatusForbidden, "access_denied", `The package is not enabled for the business unit that account_id names.`),
	// Recorded up to the second "or".
	UnsupportedGrantType: oauthRefusal(http.StatusBadRequest, "unsupported_grant_type", `Use \"authorization_code\" or \"client_credentials\" as the grant_type.`),
	// Bodies not recorded.
	InvalidRequest: oauthRefusal(http.StatusBadRequest, "invalid_request", `The request is missing a required parameter or a parameter has the wrong type.`),
	InvalidScope:   oauthRefusal(http.StatusBadRequest, "invalid_scope", `The requested scope is invalid, unknown, or not granted to the package.`),
	// Documented, and seen live.
	Blocked: platformRefusal(http.StatusTooManyRequests, `{"message":"Your requests are temporarily blocked.","errorcode":50200,"documentation":"`+documentation+`"}`),
	// Seen live now and then; gone on the next try.
	InternalError: platformRefusal(http.StatusInternalServerError, `{"message":"Internal Server Error","errorcode":0,"documentation":"`+documentation+`"}`),
	// Not recorded.
	methodNotAllowed:     platformRefusal(http.StatusMethodNotAllowed, `{"message":"Method Not Allowed","errorcode":0,"documentation":"`+documentation+`"}`).with("Allow", "POST"),
	unsupportedMediaType: platformRefusal(http.StatusUnsupportedMediaType, `{"message":"Unsupported Media Type","errorcode":0,"documentation":"`+documentation+`"}`),
}

// notAuthorized is how REST calls refuse an expired or unknown token (seen live).
var notAuthorized = platformRefusal(http.StatusUnauthorized, `{"documentation":"`+documentation+`","errorcode":0,"message":"Not Authorized"}`)

// answer is a response before a fault has its way with it.
type answer struct {
	status int
	header map[string]string
	body   []byte
}

const jsonContent = "application/json;charset=utf-8"

// oauthRefusal has the shape of RFC 6749. The description is JSON text.
func oauthRefusal(status int, code, description string) answer {
	return platformRefusal(status, `{"error":"`+code+`","error_description":"`+description+`","error_uri":"`+documentation+`"}`)
}

// platformRefusal has a body in the shape that the rest of Marketing Cloud's API
// uses.
func platformRefusal(status int, body string) answer {
	return answer{status, map[string]string{"Content-Type": jsonContent}, []byte(body)}
}

func (a answer) with(name, value string) answer {
	a.header[name] = value
	return a
}

// known tells whether the server has an answer for the refusal.
func (r Refusal) known() bool {
	_, ok := refusals[r]
	return ok || r == RateLimited || r == Unavailable
}

// answer builds the refusal's answer; retryAfter counts for those that carry it.
func (r Refusal) answer(retryAfter time.Duration) answer {
	if retryAfter <= 0 {
		retryAfter = defaultRetryAfter
	}
	seconds := strconv.Itoa(int(math.Ceil(retryAfter.Seconds())))
	switch r {
	case RateLimited: // documented
		return platformRefusal(http.StatusTooManyRequests, `{"message":"Rate limit exceeded","errorcode":50100,"retryAfter":`+seconds+`,"documentation":"`+documentation+`"}`).
			with("Retry-After", seconds)
	case Unavailable: // status, errorcode and header documented, message not
		return platformRefusal(http.StatusServiceUnavailable, `{"message":"Service Unavailable","errorcode":50300,"documentation":"`+documentation+`"}`).
			with("Retry-After", seconds)
	}
	if known, ok := refusals[r]; ok {
		return known
	}
	return refusals[InternalError]
}
