package sfmctest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
)

// addControlRoutes serves the same scripts as the methods of Server:
//
//	GET    /_control/health                     204
//	GET    /_control/ca                         CACert, in PEM
//	GET    /_control/packages                   installed packages, without secrets
//	PUT    /_control/packages                   a Package, or an array of them
//	PATCH  /_control/packages/{clientID}        a packageChange
//	GET    /_control/mode                       a Mode
//	PATCH  /_control/mode                       the fields of Mode to change
//	GET    /_control/faults                     what is left of the script
//	POST   /_control/faults                     a Fault, or an array of them, to add
//	DELETE /_control/faults                     end the script
//	GET    /_control/requests                   the latest token requests
//	GET    /_control/counts                     counters, altogether and by identity
//	GET    /_control/calls                      calls of the REST and SOAP APIs, by User-Agent
//	DELETE /_control/requests                   forget all three
//	GET    /_control/tokens                     tokens alive now, without their text
//	DELETE /_control/tokens?client_id=&account_id=  kill these
//	POST   /_control/check                      {"token": …}: whose it is, and alive or not
func (s *Server) addControlRoutes(mux *http.ServeMux) {
	read := func(pattern string, get func() any) {
		mux.HandleFunc("GET /_control/"+pattern, func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, get()) })
	}
	change := func(pattern string, apply func(*http.Request) error) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" /_control/"+path, func(w http.ResponseWriter, r *http.Request) {
			if err := apply(r); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		})
	}
	change("GET health", func(*http.Request) error { return nil })
	mux.HandleFunc("GET /_control/ca", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(s.CACert()) })

	read("packages", func() any { return s.publicPackages() })
	change("PUT packages", s.putPackages)
	change("PATCH packages/{clientID}", s.patchPackage)

	read("mode", func() any { return s.Mode() })
	change("PATCH mode", s.patchMode)

	read("faults", func() any { return s.Faults() })
	change("POST faults", s.postFaults)
	change("DELETE faults", func(*http.Request) error { s.ClearFaults(); return nil })

	read("requests", func() any { return s.Requests() })
	read("counts", func() any {
		return counts{Requests: s.Count(), Issued: s.Issued(), Identities: s.Counts()}
	})
	read("calls", func() any { return s.Calls() })
	change("DELETE requests", func(*http.Request) error { s.ResetRecord(); return nil })

	read("tokens", func() any { return s.IssuedTokens() })
	change("DELETE tokens", func(r *http.Request) error {
		query := r.URL.Query()
		if !query.Has("client_id") || !query.Has("account_id") {
			return errors.New("client_id and account_id are required")
		}
		s.KillTokens(query.Get("client_id"), query.Get("account_id"))
		return nil
	})
	mux.HandleFunc("POST /_control/check", s.serveCheck)
}

type counts struct {
	Requests   int             `json:"requests"`
	Issued     int             `json:"issued"`
	Identities []IdentityCount `json:"identities"`
}

// packageChange is what PATCH changes of a package; what it leaves out stays.
type packageChange struct {
	// StageSecret makes a staged secret, ActivateStaged activates the staged one.
	StageSecret    string `json:"stageSecret"`
	ActivateStaged bool   `json:"activateStaged"`
	// EnableAccounts and DisableAccounts change the Access tab.
	EnableAccounts  []string  `json:"enableAccounts"`
	DisableAccounts []string  `json:"disableAccounts"`
	Scopes          *[]string `json:"scopes"`
	Disabled        *bool     `json:"disabled"`
}

func (s *Server) patchPackage(r *http.Request) error {
	var c packageChange
	if err := decodeStrictly(r.Body, &c); err != nil {
		return err
	}
	clientID := r.PathValue("clientID")
	var errs []error
	if c.StageSecret != "" {
		errs = append(errs, s.StageSecret(clientID, c.StageSecret))
	}
	if c.ActivateStaged {
		errs = append(errs, s.ActivateStagedSecret(clientID))
	}
	for _, account := range c.EnableAccounts {
		errs = append(errs, s.EnableAccount(clientID, account, true))
	}
	for _, account := range c.DisableAccounts {
		errs = append(errs, s.EnableAccount(clientID, account, false))
	}
	if c.Scopes != nil {
		errs = append(errs, s.SetScopes(clientID, *c.Scopes...))
	}
	if c.Disabled != nil {
		errs = append(errs, s.DisablePackage(clientID, *c.Disabled))
	}
	return errors.Join(errs...)
}

func (s *Server) publicPackages() []Package {
	all := s.Packages()
	for i := range all {
		all[i].ClientSecret, all[i].StagedSecret = "", ""
	}
	return all
}

func (s *Server) putPackages(r *http.Request) error {
	added, err := DecodePackages(r.Body)
	if err != nil {
		return err
	}
	for _, p := range added {
		if err := s.AddPackage(p); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) patchMode(r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	s.ChangeMode(func(m *Mode) {
		changed := *m
		if err = json.Unmarshal(body, &changed); err == nil {
			*m = changed
		}
	})
	return err
}

func (s *Server) postFaults(r *http.Request) error {
	script, err := decodeOneOrMany[Fault](r.Body)
	if err != nil {
		return err
	}
	for i := range script {
		if err := script[i].check(); err != nil {
			return err
		}
	}
	s.AddFaults(script...)
	return nil
}

func (s *Server) serveCheck(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Token string `json:"token"`
	}
	if err := decodeStrictly(r.Body, &asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	accountID, alive := s.Check(asked.Token)
	writeJSON(w, map[string]any{"accountID": accountID, "alive": alive})
}

// DecodePackages reads a Package in JSON, or an array of them.
func DecodePackages(from io.Reader) ([]Package, error) { return decodeOneOrMany[Package](from) }

func decodeOneOrMany[T any](body io.Reader) ([]T, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	var many []T
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("[")) {
		err = decodeStrictly(bytes.NewReader(data), &many)
		return many, err
	}
	var one T
	err = decodeStrictly(bytes.NewReader(data), &one)
	return []T{one}, err
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	// What fails here is the connection, and with it the only one to tell.
	_ = json.NewEncoder(w).Encode(value)
}
