package sfmctest

import (
	"cmp"
	"net/http"
	"slices"
	"sync"
)

// Calls counts what one kind of client called of the REST or the SOAP API: whether
// it uses new tokens, and whether it ever used a dead one.
type Calls struct {
	UserAgent string `json:"userAgent"`
	API       string `json:"api"` // "rest" or "soap"
	Calls     int    `json:"calls"`
	// Refused are those whose token was dead, unknown or missing.
	Refused int `json:"refused"`
	// Tokens is how many different tokens were used, while they were alive.
	Tokens int `json:"tokens"`
}

type client struct{ userAgent, api string }

type clientCalls struct {
	calls, refused int
	tokens         map[uint64]struct{}
}

type calls struct {
	lock     sync.Mutex
	byClient map[client]*clientCalls
}

func (c *calls) count(r *http.Request, api string, token issuedToken, alive bool) {
	c.lock.Lock()
	defer c.lock.Unlock()
	key := client{r.UserAgent(), api}
	counted := c.byClient[key]
	if counted == nil {
		counted = &clientCalls{tokens: map[uint64]struct{}{}}
		if c.byClient == nil {
			c.byClient = map[client]*clientCalls{}
		}
		c.byClient[key] = counted
	}
	counted.calls++
	if alive {
		counted.tokens[token.number] = struct{}{}
	} else {
		counted.refused++
	}
}

func (c *calls) reset() {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.byClient = nil
}

// Calls are the calls of the REST and SOAP APIs, by User-Agent.
func (s *Server) Calls() []Calls {
	s.calls.lock.Lock()
	defer s.calls.lock.Unlock()
	all := make([]Calls, 0, len(s.calls.byClient))
	for key, counted := range s.calls.byClient {
		all = append(all, Calls{key.userAgent, key.api, counted.calls, counted.refused, len(counted.tokens)})
	}
	slices.SortFunc(all, func(a, b Calls) int {
		return cmp.Or(cmp.Compare(a.UserAgent, b.UserAgent), cmp.Compare(a.API, b.API))
	})
	return all
}
