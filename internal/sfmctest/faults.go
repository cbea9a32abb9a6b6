package sfmctest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Forever as Fault.Times makes a standing fault.
const Forever = -1

// Fault is something that goes wrong with a token request. Without Refusal,
// Status or Body the request is decided as always, a token is issued, and only
// its way back is disturbed.
type Fault struct {
	// ClientID and AccountID limit the fault to requests that sent just these.
	ClientID  string `json:"clientID,omitempty"`
	AccountID string `json:"accountID,omitempty"`
	// Times is how many requests it meets. Zero means one.
	Times int `json:"times,omitempty"`

	// Refusal answers with a documented refusal, RetryAfter with that many seconds
	// (rounded up, default 5 s).
	Refusal    Refusal       `json:"refusal,omitempty"`
	RetryAfter time.Duration `json:"retryAfter,omitempty"`
	// Status and Body answer with just these; Body alone means status 200. In Body,
	// {{client_id}} and {{client_secret}} become what the request sent.
	Status int    `json:"status,omitempty"`
	Body   string `json:"body,omitempty"`
	// Header replaces or adds header fields.
	Header map[string]string `json:"header,omitempty"`

	// Fields replaces fields of a good answer by raw JSON, e.g. "expires_in":
	// `"1079"`. An empty string leaves the field out.
	Fields map[string]string `json:"fields,omitempty"`
	// TokenLength makes the token of a good answer that long. Default 512.
	TokenLength int `json:"tokenLength,omitempty"`
	// PadTo fills the body up to that many bytes with blanks, which in JSON mean
	// nothing.
	PadTo int `json:"padTo,omitempty"`

	// Latency delays the answer, beside Mode.Latency, in real time.
	Latency time.Duration `json:"latency,omitempty"`
	// Wire is what happens to the answer on its way.
	Wire Wire `json:"wire,omitempty"`
	// Every is the time between the bytes of a SlowBody. Default 100 ms.
	Every time.Duration `json:"every,omitempty"`
}

// Wire is a fault of the transport.
type Wire string

// The faults of the transport.
const (
	// NeverAnswer keeps the request until the client goes. No token is issued.
	NeverAnswer Wire = "never-answer"
	// Reset resets the connection without an answer. No token is issued.
	Reset Wire = "reset"
	// EndlessBody adds blanks to the body for as long as the client reads.
	EndlessBody Wire = "endless-body"
	// SlowBody sends the body byte by byte.
	SlowBody Wire = "slow-body"
	// CutBody announces the whole body, sends half of it and breaks off.
	CutBody Wire = "cut-body"
)

// Redirect is a fault that sends clients, with method and body, to url.
func Redirect(url string) Fault {
	return Fault{Status: 307, Header: map[string]string{"Location": url}}
}

// ProxyPage is a fault with a page as corporate proxies answer.
func ProxyPage(status int) Fault {
	return Fault{
		Status: status,
		Header: map[string]string{"Content-Type": "text/html"},
		Body:   "<!DOCTYPE html>\n<html><head><title>Access blocked</title></head><body><h1>Your organisation's proxy</h1></body></html>\n",
	}
}

func (f *Fault) check() error {
	switch f.Wire {
	case "", NeverAnswer, Reset, EndlessBody, SlowBody, CutBody:
	default:
		return fmt.Errorf("unknown wire fault %q", f.Wire)
	}
	if f.Refusal != "" && !f.Refusal.known() {
		return fmt.Errorf("unknown refusal %q", f.Refusal)
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return fmt.Errorf("status %d: use 200 to 599", f.Status)
	}
	return nil
}

func (f *Fault) meets(r *tokenRequest) bool {
	return (f.ClientID == "" || f.ClientID == r.clientID) && (f.AccountID == "" || f.AccountID == r.accountID)
}

// replacement is the answer that the fault gives in place of a decision.
func (f *Fault) replacement(r *tokenRequest) (answer, bool) {
	switch {
	case f.Refusal != "":
		return f.Refusal.answer(f.RetryAfter), true
	case f.Status != 0 || f.Body != "":
		status := f.Status
		if status == 0 {
			status = 200
		}
		body := strings.NewReplacer("{{client_id}}", r.clientID, "{{client_secret}}", r.clientSecret).Replace(f.Body)
		return answer{status, map[string]string{"Content-Type": jsonContent}, []byte(body)}, true
	}
	return answer{}, false
}

// faults is the script: first the limited faults in order, then the standing
// ones. A request meets at most one.
type faults struct {
	any    atomic.Bool // spares good days the lock
	lock   sync.Mutex
	queued []Fault
	always []Fault
}

// AddFaults adds to the script. A request meets the first limited fault that
// matches it and, when none is left, the first matching standing one. Faults
// with unknown names panic, as they are mistakes of the test.
func (s *Server) AddFaults(script ...Fault) {
	for i := range script {
		if err := script[i].check(); err != nil {
			panic("sfmctest: " + err.Error())
		}
	}
	f := &s.faults
	f.lock.Lock()
	defer f.lock.Unlock()
	for _, fault := range script {
		switch {
		case fault.Times < 0:
			f.always = append(f.always, fault)
		default:
			fault.Times = max(1, fault.Times)
			f.queued = append(f.queued, fault)
		}
		f.any.Store(true)
	}
}

// ClearFaults ends the script. Requests that wait in a fault go on waiting.
func (s *Server) ClearFaults() {
	f := &s.faults
	f.lock.Lock()
	defer f.lock.Unlock()
	f.queued, f.always = nil, nil
	f.any.Store(false)
}

// Faults is what is left of the script, in the order in which it is tried.
func (s *Server) Faults() []Fault {
	s.faults.lock.Lock()
	defer s.faults.lock.Unlock()
	return slices.Concat(s.faults.queued, s.faults.always)
}

// next takes the fault that a request meets. Without one it is the zero Fault.
func (f *faults) next(r *tokenRequest) (Fault, bool) {
	if !f.any.Load() {
		return Fault{}, false
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	for i := range f.queued {
		if !f.queued[i].meets(r) {
			continue
		}
		met := f.queued[i]
		if f.queued[i].Times--; f.queued[i].Times == 0 {
			f.queued = slices.Delete(f.queued, i, i+1)
			f.any.Store(len(f.queued)+len(f.always) > 0)
		}
		return met, true
	}
	for i := range f.always {
		if f.always[i].meets(r) {
			return f.always[i], true
		}
	}
	return Fault{}, false
}
