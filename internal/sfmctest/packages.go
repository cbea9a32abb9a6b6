package sfmctest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Package is an installed package's server-to-server integration, which is what
// a client id and secret belong to.
type Package struct {
	ClientID     string `json:"clientID"`
	ClientSecret string `json:"clientSecret"`
	// StagedSecret is a secret that was staged long enough ago to be accepted.
	StagedSecret string `json:"stagedSecret,omitempty"`
	// AccountID is the MID of the business unit in which the package was made; it
	// is enabled, and acts when a request names none.
	AccountID string `json:"accountID"`
	// AccountIDs are the further business units enabled on the Access tab.
	AccountIDs []string `json:"accountIDs,omitempty"`
	// EnterpriseID is the tenant's MID. Default: AccountID.
	EnterpriseID string   `json:"enterpriseID,omitempty"`
	Scopes       []string `json:"scopes,omitempty"`
	Disabled     bool     `json:"disabled,omitempty"`
}

// installed is a package as the server holds it.
type installed struct {
	Package
	enabled  map[string]bool // accounts
	allScope string          // Scopes, space-separated
	claims   string          // what the package's tokens embed
	pending  []pendingChange // in order of time
}

// pendingChange is a change that was made but does not show yet.
type pendingChange struct {
	at    time.Time
	apply func(*installed)
}

type packages struct {
	lock sync.Mutex
	byID map[string]*installed
}

// AddPackage installs a package, or replaces the one with that client id.
func (s *Server) AddPackage(p Package) error {
	if p.ClientID == "" || p.ClientSecret == "" {
		return fmt.Errorf("package %q: clientID and clientSecret are required", p.ClientID)
	}
	if p.EnterpriseID == "" {
		p.EnterpriseID = p.AccountID
	}
	for _, id := range append([]string{p.AccountID, p.EnterpriseID}, p.AccountIDs...) {
		if !isMID(id) {
			return fmt.Errorf("package %q: %q is not a MID: use up to 18 digits", p.ClientID, id)
		}
	}
	in := &installed{
		Package: p,
		enabled: map[string]bool{p.AccountID: true},
		claims:  tokenClaims(p.ClientID, p.EnterpriseID),
	}
	for _, id := range p.AccountIDs {
		in.enabled[id] = true
	}
	in.setScopes(p.Scopes)
	s.packages.lock.Lock()
	defer s.packages.lock.Unlock()
	if s.packages.byID == nil {
		s.packages.byID = map[string]*installed{}
	}
	s.packages.byID[p.ClientID] = in
	return nil
}

// StageSecret makes a staged secret, accepted beside the active one as soon as
// Mode.StagedAfter has passed.
func (s *Server) StageSecret(clientID, secret string) error {
	return s.changePackage(clientID, s.Mode().StagedAfter, func(in *installed) { in.StagedSecret = secret })
}

// ActivateStagedSecret makes the staged secret the active one. The formerly
// active one is dead at once (documented).
func (s *Server) ActivateStagedSecret(clientID string) error {
	now := s.clock.Now()
	s.packages.lock.Lock()
	defer s.packages.lock.Unlock()
	in, err := s.packages.find(clientID, now)
	if err != nil {
		return err
	}
	if in.StagedSecret == "" {
		return fmt.Errorf("package %q has no staged secret that is accepted yet", clientID)
	}
	in.ClientSecret, in.StagedSecret = in.StagedSecret, ""
	return nil
}

// EnableAccount enables a business unit on the package's Access tab, or takes
// it away, at once: Salesforce may take up to five minutes (documented).
func (s *Server) EnableAccount(clientID, accountID string, enabled bool) error {
	if !isMID(accountID) {
		return fmt.Errorf("%q is not a MID: use up to 18 digits", accountID)
	}
	return s.changePackage(clientID, 0, func(in *installed) { in.enabled[accountID] = enabled })
}

// SetScopes changes the package's scopes, at once: Salesforce may take up to five
// minutes (documented).
func (s *Server) SetScopes(clientID string, scopes ...string) error {
	return s.changePackage(clientID, 0, func(in *installed) { in.setScopes(scopes) })
}

// DisablePackage disables a package, or enables it again, at once.
func (s *Server) DisablePackage(clientID string, disabled bool) error {
	return s.changePackage(clientID, 0, func(in *installed) { in.Disabled = disabled })
}

func (s *Server) changePackage(clientID string, after time.Duration, apply func(*installed)) error {
	now := s.clock.Now()
	s.packages.lock.Lock()
	defer s.packages.lock.Unlock()
	in, err := s.packages.find(clientID, now)
	if err != nil {
		return err
	}
	if after <= 0 {
		apply(in)
		return nil
	}
	in.pending = append(in.pending, pendingChange{now.Add(after), apply})
	slices.SortStableFunc(in.pending, func(a, b pendingChange) int { return a.at.Compare(b.at) })
	return nil
}

// find returns a package with the changes that show by now. The lock is held.
func (p *packages) find(clientID string, now time.Time) (*installed, error) {
	in, ok := p.byID[clientID]
	if !ok {
		return nil, fmt.Errorf("no package has the client id %q", clientID)
	}
	for len(in.pending) > 0 && !in.pending[0].at.After(now) {
		in.pending[0].apply(in)
		in.pending = in.pending[1:]
	}
	return in, nil
}

func (in *installed) setScopes(scopes []string) {
	in.Scopes = slices.Clone(scopes)
	in.allScope = strings.Join(scopes, " ")
}

// grant is what a token may do and for whom.
type grant struct {
	clientID, accountID, enterpriseID, scope, claims string
}

// authorize decides about a well-formed request.
func (p *packages) authorize(r *tokenRequest, now time.Time, mode *Mode) (grant, Refusal) {
	p.lock.Lock()
	defer p.lock.Unlock()
	in, err := p.find(r.clientID, now)
	if err != nil {
		return grant{}, UnknownClient
	}
	known := r.clientSecret == in.ClientSecret || in.StagedSecret != "" && r.clientSecret == in.StagedSecret
	if !known || in.Disabled {
		return grant{}, InvalidClient
	}
	accountID := r.accountID
	if accountID == "" {
		accountID = in.AccountID
	}
	if !in.enabled[accountID] {
		if mode.ForbidDisabledAccounts {
			return grant{}, AccountForbidden
		}
		return grant{}, AccountNotEnabled
	}
	return grant{in.ClientID, accountID, in.EnterpriseID, in.grantedScope(r), in.claims}, ""
}

// grantedScope is the requested scopes that the package has, or all of the
// package's when none were asked for. An empty string asks for a token without
// any permission (documented).
func (in *installed) grantedScope(r *tokenRequest) string {
	if !r.scopeSent {
		return in.allScope
	}
	requested := map[string]bool{}
	for scope := range strings.FieldsSeq(r.scope) {
		requested[scope] = true
	}
	granted := make([]string, 0, len(requested))
	for _, scope := range in.Scopes {
		if requested[scope] {
			granted = append(granted, scope)
		}
	}
	return strings.Join(granted, " ")
}

// Packages are the installed packages as requests see them now, by client id.
func (s *Server) Packages() []Package {
	now := s.clock.Now()
	s.packages.lock.Lock()
	defer s.packages.lock.Unlock()
	var all []Package
	for _, id := range slices.Sorted(maps.Keys(s.packages.byID)) {
		in, err := s.packages.find(id, now)
		if err != nil {
			continue
		}
		p := in.Package
		p.AccountIDs = nil
		for _, account := range slices.Sorted(maps.Keys(in.enabled)) {
			if in.enabled[account] {
				p.AccountIDs = append(p.AccountIDs, account)
			}
		}
		all = append(all, p)
	}
	return all
}

// isMID tells whether id is digits only, as a JSON number must be.
func isMID(id string) bool {
	if len(id) == 0 || len(id) > 18 || id[0] == '0' {
		return false
	}
	return strings.Trim(id, "0123456789") == "" && json.Valid([]byte(id))
}
