package sfmctest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// duration is a time.Duration that the control API writes as "90s" and reads in
// that form or as a number of seconds.
type duration time.Duration

func (d duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(d).String())
}

func (d *duration) UnmarshalJSON(data []byte) error {
	var seconds float64
	if json.Unmarshal(data, &seconds) == nil {
		*d = duration(seconds * float64(time.Second))
		return nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("a duration is a string like %q or a number of seconds", "90s")
	}
	parsed, err := time.ParseDuration(text)
	*d = duration(parsed)
	return err
}

// The wire forms below shadow the duration fields of what they embed.

type plainMode Mode

type wireMode struct {
	*plainMode
	ExpiresIn   duration      `json:"expiresIn"`
	Life        duration      `json:"life"`
	Latency     duration      `json:"latency"`
	RateLimit   wireRateLimit `json:"rateLimit"`
	StagedAfter duration      `json:"stagedAfter"`
}

type wireRateLimit struct {
	Requests int      `json:"requests"`
	Window   duration `json:"window"`
}

func (m *Mode) wire() wireMode {
	return wireMode{
		plainMode:   (*plainMode)(m),
		ExpiresIn:   duration(m.ExpiresIn),
		Life:        duration(m.Life),
		Latency:     duration(m.Latency),
		RateLimit:   wireRateLimit{m.RateLimit.Requests, duration(m.RateLimit.Window)},
		StagedAfter: duration(m.StagedAfter),
	}
}

// MarshalJSON writes durations as strings.
func (m Mode) MarshalJSON() ([]byte, error) { return json.Marshal(m.wire()) }

// UnmarshalJSON changes the fields that data names and leaves the others.
func (m *Mode) UnmarshalJSON(data []byte) error {
	w := m.wire()
	if err := decodeStrictly(bytes.NewReader(data), &w); err != nil {
		return err
	}
	m.ExpiresIn = time.Duration(w.ExpiresIn)
	m.Life = time.Duration(w.Life)
	m.Latency = time.Duration(w.Latency)
	m.RateLimit = RateLimit{w.RateLimit.Requests, time.Duration(w.RateLimit.Window)}
	m.StagedAfter = time.Duration(w.StagedAfter)
	return nil
}

type plainFault Fault

type wireFault struct {
	*plainFault
	RetryAfter duration `json:"retryAfter,omitempty"`
	Latency    duration `json:"latency,omitempty"`
	Every      duration `json:"every,omitempty"`
}

func (f *Fault) wire() wireFault {
	return wireFault{(*plainFault)(f), duration(f.RetryAfter), duration(f.Latency), duration(f.Every)}
}

// MarshalJSON writes durations as strings.
func (f Fault) MarshalJSON() ([]byte, error) { return json.Marshal(f.wire()) }

// UnmarshalJSON reads what MarshalJSON writes; unknown names are an error.
func (f *Fault) UnmarshalJSON(data []byte) error {
	w := f.wire()
	if err := decodeStrictly(bytes.NewReader(data), &w); err != nil {
		return err
	}
	f.RetryAfter, f.Latency, f.Every = time.Duration(w.RetryAfter), time.Duration(w.Latency), time.Duration(w.Every)
	return nil
}

// decodeStrictly refuses unknown names, so that a misspelt script fails loudly.
func decodeStrictly(from io.Reader, into any) error {
	decoder := json.NewDecoder(from)
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}
