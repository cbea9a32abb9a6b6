package sfmctest

import "time"

const (
	// Seen in every live answer.
	reportedLife = 1079 * time.Second
	// Salesforce reports two minutes less than the real life (documented).
	unreportedLife = 2 * time.Minute
	// A staged secret is accepted five minutes after it was made (documented).
	stagedAfter = 5 * time.Minute
)

// Mode is how the server treats good requests. In JSON, durations are strings
// like "90s" or numbers of seconds.
type Mode struct {
	// ExpiresIn is the life that answers report, in whole seconds.
	ExpiresIn time.Duration `json:"expiresIn"`
	// Life is how long tokens issued from now on really live. Zero: ExpiresIn
	// plus two minutes, as Salesforce does.
	Life time.Duration `json:"life"`
	// KillOldTokens lets a new token end the older ones of the same client id and
	// business unit, whatever their scopes and whichever secret asked. Salesforce
	// documents such a thing for the older protocol only; for v2 nobody knows, so
	// this is the worst case that still lets one client serve several BUs.
	KillOldTokens bool `json:"killOldTokens"`
	// BareInstanceURLs gives rest_instance_url and soap_instance_url without
	// scheme and trailing slash, like the documentation's example; live answers
	// have both.
	BareInstanceURLs bool `json:"bareInstanceURLs"`
	// Latency delays each answer to a token request, in real time.
	Latency time.Duration `json:"latency"`
	// RateLimit throttles each client id by itself.
	RateLimit RateLimit `json:"rateLimit"`
	// StagedAfter is how long after StageSecret the staged secret is accepted.
	// Default 5 min (documented).
	StagedAfter time.Duration `json:"stagedAfter"`
	// ForbidDisabledAccounts answers 403 instead of 401 for a business unit that is
	// not enabled on the package. 401 is documented, 403 is to be expected.
	ForbidDisabledAccounts bool `json:"forbidDisabledAccounts"`
}

// RateLimit allows a client Requests token requests in any Window. Refused ones
// count too: "being throttled lasts until requests get fewer" (documented; the
// numbers are not published). Zero Requests: no limit.
type RateLimit struct {
	Requests int           `json:"requests"`
	Window   time.Duration `json:"window"`
}

func initialMode(o Options) *Mode {
	m := &Mode{
		ExpiresIn:     o.ExpiresIn,
		Life:          o.Life,
		KillOldTokens: o.KillOldTokens,
		Latency:       o.Latency,
		StagedAfter:   stagedAfter,
	}
	if m.ExpiresIn == 0 {
		m.ExpiresIn = reportedLife
	}
	return m
}

// realLife is how long a token issued now lives.
func (m *Mode) realLife() time.Duration {
	if m.Life != 0 {
		return m.Life
	}
	return m.ExpiresIn + unreportedLife
}

// Mode is the present mode.
func (s *Server) Mode() Mode { return *s.mode.Load() }

// ChangeMode changes the mode for requests that arrive from now on.
func (s *Server) ChangeMode(change func(*Mode)) {
	s.modeLock.Lock()
	defer s.modeLock.Unlock()
	m := *s.mode.Load()
	change(&m)
	s.mode.Store(&m)
}
