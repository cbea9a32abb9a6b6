package sfmctest

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// serveToken is POST /v2/token.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	request, refusal := readTokenRequest(r)
	entry, counted := s.record.arrived(TokenRequest{
		Time:          s.clock.Now(),
		ClientID:      request.clientID,
		AccountID:     request.accountID,
		AccountIDType: request.accountIDType,
		Scope:         request.scope,
		ScopeSent:     request.scopeSent,
		GrantType:     request.grantType,
		ContentType:   request.contentType,
		UserAgent:     r.UserAgent(),
		Protocol:      r.Proto,
		BrokenOff:     request.brokenOff,
	}, identityOf(request))
	mode := s.mode.Load()
	fault, _ := s.faults.next(request)

	unanswered := !wait(r.Context(), mode.Latency+fault.Latency)
	if fault.Wire == NeverAnswer {
		<-r.Context().Done()
		unanswered = true
	}
	if unanswered || fault.Wire == Reset {
		s.report(s.record.decided(entry, counted, 0, "", false))
		if fault.Wire == Reset {
			resetConnection(r)
		}
		// To return would be to answer 200, with nothing.
		breakOff()
	}

	decision := s.decide(request, refusal, mode, &fault, r.Host)
	s.report(s.record.decided(entry, counted, decision.status, decision.refusal, decision.issued))
	fault.send(w, r, decision.answer)
}

func (s *Server) report(request TokenRequest) {
	if s.options.OnTokenRequest != nil {
		s.options.OnTokenRequest(request)
	}
}

type decision struct {
	answer
	refusal Refusal
	issued  bool
}

// decide answers a request that was read, or refused in reading.
func (s *Server) decide(r *tokenRequest, refusal Refusal, mode *Mode, fault *Fault, host string) decision {
	if replaced, ok := fault.replacement(r); ok {
		return decision{answer: replaced, refusal: fault.Refusal}
	}
	now := s.clock.Now()
	if mode.RateLimit.Requests > 0 && s.packages.has(r.clientID) {
		if retryAfter, tooMany := s.throttle.tooMany(r.clientID, now, mode.RateLimit); tooMany {
			return decision{answer: RateLimited.answer(retryAfter), refusal: RateLimited}
		}
	}
	var granted grant
	if refusal == "" {
		granted, refusal = s.packages.authorize(r, now, mode)
	}
	if refusal != "" {
		return decision{answer: refusal.answer(0), refusal: refusal}
	}
	token := s.tokens.issue(granted, now, mode, fault.TokenLength)
	return decision{answer: tokenAnswer(token, granted.scope, host, mode, fault.Fields), issued: true}
}

// tokenAnswer is a good answer, with its fields in the order of live ones.
func tokenAnswer(token, scope, host string, mode *Mode, replace map[string]string) answer {
	fields := [...]struct{ name, raw string }{
		{"access_token", `"` + token + `"`},
		{"token_type", `"Bearer"`},
		{"expires_in", strconv.FormatInt(int64(mode.ExpiresIn/time.Second), 10)},
		{"scope", quote(scope)},
		{"soap_instance_url", quote(instanceURL(host, "soap", mode.BareInstanceURLs))},
		{"rest_instance_url", quote(instanceURL(host, "rest", mode.BareInstanceURLs))},
	}
	body := append(make([]byte, 0, 1024), '{')
	add := func(name, raw string) {
		if raw == "" {
			return
		}
		if len(body) > 1 {
			body = append(body, ',')
		}
		body = append(append(append(append(body, '"'), name...), `":`...), raw...)
	}
	replaced := map[string]bool{}
	for _, field := range fields {
		raw := field.raw
		if other, ok := replace[field.name]; ok {
			raw, replaced[field.name] = other, true
		}
		add(field.name, raw)
	}
	if len(replaced) < len(replace) {
		for _, name := range slices.Sorted(maps.Keys(replace)) {
			if !replaced[name] {
				add(name, replace[name])
			}
		}
	}
	return answer{http.StatusOK, map[string]string{"Content-Type": jsonContent}, append(body, '}')}
}

// instanceURL is where the tenant's REST or SOAP API is: this same server, by
// the name under which the client called it. A client that was led here under a
// tenant's real name gets the real names.
func instanceURL(host, api string, bare bool) string {
	host = strings.Replace(host, ".auth.marketingcloudapis.com", "."+api+".marketingcloudapis.com", 1)
	if bare {
		return host
	}
	return "https://" + host + "/"
}

func quote(s string) string {
	quoted, err := json.Marshal(s)
	if err != nil { // never for a string
		return `""`
	}
	return string(quoted)
}
