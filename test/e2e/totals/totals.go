// Package totals is what a consumer says of its calls.
package totals

import "time"

// Totals count how calls ended.
type Totals struct {
	Calls int `json:"calls"`
	// Dead were refused with 401, Wrong acted for another business unit, Failed got no answer of either kind.
	Dead   int `json:"dead"`
	Wrong  int `json:"wrong"`
	Failed int `json:"failed"`
	// Seen are the tokens that the file held, one after another.
	Seen      []Sighting `json:"seen"`
	LastError string     `json:"lastError,omitempty"`
	// Now is when they were told, by the consumer's clock.
	Now time.Time `json:"now"`
}

// Sighting is the first moment at which the file held a token, which is named by a hash.
type Sighting struct {
	Token string    `json:"token"`
	At    time.Time `json:"at"`
}
