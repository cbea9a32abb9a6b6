package main

import (
	"context"
	"errors"
	"time"
)

// row is what one run brought.
type row struct {
	name       string
	subject    string // floor or operator
	tokens     int    // what was asked for in this run, or looked at
	took       time.Duration
	slowest    float64 // rate of several rounds; 0 if there was one
	fastest    float64
	requests   int // token requests
	identities int // that they were for
	calls      calls
	usage      usage
	serverCPU  time.Duration   // the API server's CPU time, with the little that watching from here costs it
	waits      []time.Duration // access: how long each change took until it was seen, sorted
	served     time.Duration   // restarts: from the start until a change made right after it was served
}

func (r row) rate() float64 {
	if r.took <= 0 {
		return 0
	}
	return float64(r.tokens) / r.took.Seconds()
}

// meter holds the counters as they were when a run began.
type meter struct {
	b      *bench
	calls  calls
	before usage
	server usage // the API server's
}

// startMeter begins a run of a process that is idle, or isn't there yet (nil).
func (b *bench) startMeter(ctx context.Context, of *child) (*meter, error) {
	m := &meter{b: b}
	var err error
	if of != nil {
		if m.before, err = readUsage(of.PID()); err != nil {
			return nil, err
		}
	}
	if m.calls, err = b.settledCalls(ctx); err != nil {
		return nil, err
	}
	if m.server, err = readUsage(b.cluster.APIServerPID()); err != nil {
		return nil, err
	}
	return m, b.standIn.forgetRequests(ctx)
}

// read ends a run when its process has become idle, so that all that it cost is counted. The rate's time is from the
// arrival of the first token request until ended: the start of a process is not in it.
func (m *meter) read(ctx context.Context, of *child, ended time.Time) (row, error) {
	if err := waitIdle(ctx, of); err != nil {
		return row{}, err
	}
	used, err := readUsage(of.PID())
	if err != nil {
		return row{}, err
	}
	server, err := readUsage(m.b.cluster.APIServerPID()) // before its metrics are read, which costs it more
	if err != nil {
		return row{}, err
	}
	now, err := m.b.settledCalls(ctx)
	if err != nil {
		return row{}, err
	}
	r := row{subject: of.name, calls: now.minus(m.calls), usage: usage{cpu: used.cpu - m.before.cpu, peak: used.peak}, serverCPU: server.cpu - m.server.cpu}
	if r.requests, r.identities, err = m.b.standIn.countRequests(ctx); err != nil {
		return row{}, err
	}
	began, err := m.b.standIn.firstRequest(ctx)
	if !began.IsZero() {
		r.took = ended.Sub(began)
	}
	return r, err
}

// meterServing measures a side from its start until all SFMCTokens have a token, and stops it.
func (b *bench) meterServing(ctx context.Context, start func() (*child, error)) (r row, err error) {
	m, err := b.startMeter(ctx, nil)
	if err != nil {
		return row{}, err
	}
	tokens, err := b.watchTokens(ctx)
	if err != nil {
		return row{}, err
	}
	side, err := start()
	if side != nil {
		defer func() { err = errors.Join(err, side.stop()) }()
	}
	if err != nil {
		return row{}, err
	}
	ended, err := tokens.until(ctx, side, b.tokens, holdsLong)
	if err != nil {
		return row{}, err
	}
	r, err = m.read(ctx, side, ended)
	r.tokens = b.tokens
	return r, err
}
