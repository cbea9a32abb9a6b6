package sfmctest

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
)

// recordedRequests is how many of the latest token requests are kept.
const recordedRequests = 10_000

// TokenRequest is one request to the token endpoint. It holds no secret.
type TokenRequest struct {
	Time     time.Time `json:"time"` // of arrival, by the server's clock
	ClientID string    `json:"clientID"`
	// AccountID is account_id as sent, and AccountIDType how: "number", "string",
	// another JSON type, "form", or "absent".
	AccountID     string `json:"accountID"`
	AccountIDType string `json:"accountIDType"`
	// Scope is scope as sent; ScopeSent tells an empty one from an absent one.
	Scope       string `json:"scope"`
	ScopeSent   bool   `json:"scopeSent"`
	GrantType   string `json:"grantType"`
	ContentType string `json:"contentType"`
	UserAgent   string `json:"userAgent"`
	Protocol    string `json:"protocol"`
	// BrokenOff tells that the connection ended before the whole body had come, so
	// that nothing is known of it.
	BrokenOff bool `json:"brokenOff,omitempty"`
	// Status is what was answered. Zero: nothing yet, or nothing ever.
	Status int `json:"status"`
	// Refusal names the refusal, if it was a known one.
	Refusal Refusal `json:"refusal,omitempty"`
	// Issued tells whether a token was issued, even if its way back was disturbed.
	Issued bool `json:"issued"`
}

// Identity is what a token is asked for by. Requests of one identity could share
// a token.
type Identity struct {
	ClientID     string `json:"clientID"`
	ClientSecret string `json:"-"`
	AccountID    string `json:"accountID"` // as sent; empty: absent
	Scopes       string `json:"scopes"`    // as sent, sorted, space-separated
	ScopeSent    bool   `json:"scopeSent"`
}

// IdentityCount counts the token requests of an identity.
type IdentityCount struct {
	Identity
	Requests int `json:"requests"`
	Issued   int `json:"issued"`
}

// record remembers the latest requests and counts all of them.
type record struct {
	lock       sync.Mutex
	latest     []*TokenRequest // a ring when full
	next       int
	count      int
	issued     int
	byIdentity map[Identity]*IdentityCount
}

// arrived records a request before anything is decided.
func (r *record) arrived(request TokenRequest, identity Identity) (*TokenRequest, *IdentityCount) {
	entry := &request
	r.lock.Lock()
	defer r.lock.Unlock()
	if len(r.latest) < recordedRequests {
		r.latest = append(r.latest, entry)
	} else {
		r.latest[r.next] = entry
		r.next = (r.next + 1) % recordedRequests
	}
	if r.byIdentity == nil {
		r.byIdentity = map[Identity]*IdentityCount{}
	}
	counted := r.byIdentity[identity]
	if counted == nil {
		counted = &IdentityCount{Identity: identity}
		r.byIdentity[identity] = counted
	}
	r.count++
	counted.Requests++
	return entry, counted
}

// decided records what is answered.
func (r *record) decided(entry *TokenRequest, counted *IdentityCount, status int, refusal Refusal, issued bool) TokenRequest {
	r.lock.Lock()
	defer r.lock.Unlock()
	entry.Status, entry.Refusal, entry.Issued = status, refusal, issued
	if issued {
		r.issued++
		counted.Issued++
	}
	return *entry
}

func identityOf(r *tokenRequest) Identity {
	scopes := r.scope
	if strings.ContainsRune(scopes, ' ') {
		fields := strings.Fields(scopes)
		slices.Sort(fields)
		scopes = strings.Join(slices.Compact(fields), " ")
	}
	return Identity{r.clientID, r.clientSecret, r.accountID, scopes, r.scopeSent}
}

// Requests are the latest token requests, at most 10,000, oldest first.
func (s *Server) Requests() []TokenRequest {
	r := &s.record
	r.lock.Lock()
	defer r.lock.Unlock()
	all := make([]TokenRequest, 0, len(r.latest))
	for i := range r.latest {
		all = append(all, *r.latest[(r.next+i)%len(r.latest)])
	}
	return all
}

// Count is how many token requests arrived, whatever became of them.
func (s *Server) Count() int {
	s.record.lock.Lock()
	defer s.record.lock.Unlock()
	return s.record.count
}

// Issued is how many tokens were issued.
func (s *Server) Issued() int {
	s.record.lock.Lock()
	defer s.record.lock.Unlock()
	return s.record.issued
}

// CountFor is how many token requests arrived from a client for a business unit
// as sent (empty: none sent), with any secret and scopes.
func (s *Server) CountFor(clientID, accountID string) int {
	s.record.lock.Lock()
	defer s.record.lock.Unlock()
	sum := 0
	for identity, counted := range s.record.byIdentity {
		if identity.ClientID == clientID && identity.AccountID == accountID {
			sum += counted.Requests
		}
	}
	return sum
}

// Counts are the counters by identity, in a stable order.
func (s *Server) Counts() []IdentityCount {
	s.record.lock.Lock()
	all := make([]IdentityCount, 0, len(s.record.byIdentity))
	for _, counted := range s.record.byIdentity {
		all = append(all, *counted)
	}
	s.record.lock.Unlock()
	slices.SortFunc(all, func(a, b IdentityCount) int {
		return cmp.Or(cmp.Compare(a.ClientID, b.ClientID), cmp.Compare(a.AccountID, b.AccountID),
			cmp.Compare(a.Scopes, b.Scopes), cmp.Compare(a.ClientSecret, b.ClientSecret))
	})
	return all
}

// ResetRecord forgets all token requests and calls, and sets the counters to zero.
// Tokens, packages, mode and faults stay.
func (s *Server) ResetRecord() {
	r := &s.record
	r.lock.Lock()
	defer r.lock.Unlock()
	r.latest, r.next, r.count, r.issued, r.byIdentity = nil, 0, 0, 0, nil
	s.calls.reset()
}
