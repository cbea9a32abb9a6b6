package sfmctest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// tokenLength is the documented maximum.
const tokenLength = 512

// Token is what the server knows of a token that it issued.
type Token struct {
	Value     string    `json:"-"`
	ClientID  string    `json:"clientID"`
	AccountID string    `json:"accountID"` // the business unit it acts in
	Scope     string    `json:"scope"`     // what was granted
	IssuedAt  time.Time `json:"issuedAt"`
	ExpiresAt time.Time `json:"expiresAt"` // when it really dies
}

// tokens remembers the issued tokens by number. A token's text is computed from
// its number and not kept, so that hours of soak fit in memory.
type tokens struct {
	lock       sync.Mutex
	last       uint64
	issued     map[uint64]issuedToken
	sweepAt    int                // sweep when issued has grown to this
	oldestLive map[killKey]uint64 // older ones were killed

	signature string // a fixed third part
	padding   string // the fourth part's material
}

type issuedToken struct {
	grant
	number              uint64
	issuedAt, expiresAt time.Time
	length              int
}

// killKey says which tokens a new one kills; see Mode.KillOldTokens.
type killKey struct{ clientID, accountID string }

const sweepLeast = 1024

func (t *tokens) init() {
	t.issued = map[uint64]issuedToken{}
	t.oldestLive = map[killKey]uint64{}
	t.sweepAt = sweepLeast
	random := make([]byte, tokenLength)
	_, _ = rand.Read(random) // never fails
	t.padding = base64.RawURLEncoding.EncodeToString(random)
	t.signature = t.padding[:43] // the length of an HMAC-SHA256
}

// issue makes a token for what was granted.
func (t *tokens) issue(g grant, now time.Time, mode *Mode, length int) string {
	if length == 0 {
		length = tokenLength
	}
	t.lock.Lock()
	t.last++
	number := t.last
	token := issuedToken{g, number, now, now.Add(mode.realLife()), length}
	if len(t.issued) >= t.sweepAt {
		t.forgetDead(now)
	}
	t.issued[number] = token
	if mode.KillOldTokens {
		t.oldestLive[killKey{g.clientID, g.accountID}] = number
	}
	t.lock.Unlock()
	return t.text(number, token)
}

// forgetDead drops dead tokens; to clients, one is as good as one never issued.
func (t *tokens) forgetDead(now time.Time) {
	for number, token := range t.issued {
		if !t.alive(number, token, now) {
			delete(t.issued, number)
		}
	}
	t.sweepAt = max(sweepLeast, 2*len(t.issued))
}

func (t *tokens) alive(number uint64, token issuedToken, now time.Time) bool {
	return now.Before(token.expiresAt) && number >= t.oldestLive[killKey{token.clientID, token.accountID}]
}

const (
	tokenHeader  = `{"alg":"HS256","kid":"4","ver":"1","typ":"JWT"}`
	claimsOpen   = `{"access_token":"`
	numberDigits = 16
)

// tokenClaims is what all tokens of a package embed after their number: the
// client id above all, which is why a token's text must not be logged even when
// dead. There is no exp (seen live).
func tokenClaims(clientID, enterpriseID string) string {
	if len(clientID) > 64 {
		clientID = clientID[:64]
	}
	id, err := json.Marshal(clientID)
	if err != nil {
		id = []byte(`""`)
	}
	return `","client_id":` + string(id) + `,"eid":` + enterpriseID +
		`,"stack_key":"S50","platform_version":2,"client_type":"ServerToServer"}`
}

var tokenHeaderPart = base64.RawURLEncoding.EncodeToString([]byte(tokenHeader)) + "."

// text is the token: four dot-separated parts, JWT-like (seen live).
func (t *tokens) text(number uint64, token issuedToken) string {
	claims := make([]byte, 0, 256)
	claims = append(claims, claimsOpen...)
	digits := strconv.AppendUint(nil, number, 16)
	claims = append(claims, strings.Repeat("0", numberDigits-len(digits))...)
	claims = append(claims, digits...)
	claims = append(claims, token.claims...)

	text := make([]byte, 0, max(token.length, tokenLength))
	text = append(text, tokenHeaderPart...)
	text = base64.RawURLEncoding.AppendEncode(text, claims)
	text = append(text, '.')
	text = append(text, t.signature...)
	text = append(text, '.')
	for len(text) < token.length {
		text = append(text, t.padding[:min(len(t.padding), token.length-len(text))]...)
	}
	return string(text)
}

// find returns the token with that text if it is remembered.
func (t *tokens) find(text string, now time.Time) (token issuedToken, alive bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 4 {
		return issuedToken{}, false
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || len(claims) < len(claimsOpen)+numberDigits {
		return issuedToken{}, false
	}
	number, err := strconv.ParseUint(string(claims[len(claimsOpen):len(claimsOpen)+numberDigits]), 16, 64)
	if err != nil {
		return issuedToken{}, false
	}
	t.lock.Lock()
	token, ok := t.issued[number]
	alive = ok && t.alive(number, token, now)
	t.lock.Unlock()
	if !ok || t.text(number, token) != text {
		return issuedToken{}, false
	}
	return token, alive
}

// Check tells which business unit a token acts in, and whether it is alive. Of
// a token that is unknown, or was forgotten after its death, accountID is empty.
func (s *Server) Check(token string) (accountID string, alive bool) {
	found, alive := s.tokens.find(token, s.clock.Now())
	return found.accountID, alive
}

// IssuedTokens are the tokens alive now, oldest first.
func (s *Server) IssuedTokens() []Token {
	now := s.clock.Now()
	t := &s.tokens
	t.lock.Lock()
	defer t.lock.Unlock()
	t.forgetDead(now)
	numbers := make([]uint64, 0, len(t.issued))
	for number := range t.issued {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	all := make([]Token, 0, len(numbers))
	for _, number := range numbers {
		token := t.issued[number]
		all = append(all, Token{t.text(number, token), token.clientID, token.accountID, token.scope, token.issuedAt, token.expiresAt})
	}
	return all
}

// KillTokens ends all tokens of a client in a business unit before their time.
func (s *Server) KillTokens(clientID, accountID string) {
	s.tokens.lock.Lock()
	defer s.tokens.lock.Unlock()
	s.tokens.oldestLive[killKey{clientID, accountID}] = s.tokens.last + 1
}
