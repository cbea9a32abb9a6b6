package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// steadyName is the run whose rate is given, not reached.
const steadyName = "steady refresh"

// compareRefresh measures refreshes: at a rate below what either can do, and as many at once as there are tokens. It
// leaves the operator's tokens behind, valid and at rest.
func (b *bench) compareRefresh(ctx context.Context) error {
	if err := b.createTokens(ctx, 0, b.tokens, b.tokens); err != nil {
		return err
	}
	if err := b.refreshByFloor(ctx); err != nil {
		return err
	}
	if err := b.deleteTokens(ctx, theNamespaces()); err != nil {
		return err
	}
	if err := b.createTokens(ctx, 0, b.tokens, b.tokens); err != nil {
		return err
	}
	if err := b.each(func(operator) error { return b.refreshSteadily(ctx) }); err != nil {
		return err
	}
	rows := map[string][]row{}
	for round := range b.rounds {
		say("operator: %d tokens due at its start, round %d of %d", b.tokens, round+1, b.rounds)
		if err := b.each(func(version operator) error {
			r, err := b.refreshAllDue(ctx)
			rows[version.name] = append(rows[version.name], r)
			return err
		}); err != nil {
			return err
		}
	}
	for _, version := range slices.Sorted(maps.Keys(rows)) {
		b.addRow(fmt.Sprintf("%d refreshes due at once", b.tokens), median(rows[version]))
	}
	return nil
}

// pace is the time from one token to the next, so that each has its turn once in a short life.
func (b *bench) pace() time.Duration { return b.shortLife * 2 / 3 / time.Duration(b.tokens) }

func (b *bench) refreshByFloor(ctx context.Context) (err error) {
	worker, err := b.startFloor(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, worker.stop()) }()
	if err := worker.tell(ctx, "create"); err != nil {
		return err
	}
	say("floor: steady refresh")
	steady, err := b.meterFloor(ctx, worker, b.pace(), b.steadyCycles)
	if err != nil {
		return err
	}
	var rows []row
	for round := range b.rounds {
		say("floor: refreshing %d tokens, round %d of %d", b.tokens, round+1, b.rounds)
		r, err := b.meterFloor(ctx, worker, 0, 1)
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	b.addRow(fmt.Sprintf("%d refreshes due at once", b.tokens), median(rows))
	b.addRow(steadyName, steady)
	return nil
}

// meterFloor has the floor refresh all tokens some times, and measures it by its own word that it is done.
func (b *bench) meterFloor(ctx context.Context, worker *child, pace time.Duration, times int) (row, error) {
	m, err := b.startMeter(ctx, worker)
	if err != nil {
		return row{}, err
	}
	for range times {
		if err := worker.tell(ctx, refreshCommand(pace)); err != nil {
			return row{}, err
		}
	}
	r, err := m.read(ctx, worker, time.Now())
	r.tokens = r.requests
	return r, err
}

// refreshSteadily lets the operator refresh tokens of a short life, spread over time by asking for the first refresh
// of each one after the other. The run begins and ends with an operator at rest, so all counts are exact.
func (b *bench) refreshSteadily(ctx context.Context) (err error) {
	operator, err := b.startServing(ctx, b.tokens, unpaced...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, operator.stop()) }()
	say("operator: steady refresh")
	m, err := b.startMeter(ctx, operator)
	if err != nil {
		return err
	}
	if err := b.runShortLives(ctx, operator); err != nil {
		return err
	}
	r, err := m.read(ctx, operator, time.Now())
	if err != nil {
		return err
	}
	r.tokens = r.requests
	b.promiseRefreshes(r)
	b.addRow(steadyName, r)
	return nil
}

func (b *bench) runShortLives(ctx context.Context, operator *child) error {
	if err := b.standIn.setLife(ctx, b.shortLife); err != nil {
		return err
	}
	ticker := time.NewTicker(b.pace())
	defer ticker.Stop()
	for i := range b.tokens {
		if err := b.requestRefresh(ctx, keyOf(i), "steady "+b.operator.name); err != nil {
			return err
		}
		<-ticker.C
	}
	if err := poll(ctx, time.Second, func() (bool, error) {
		requests, _, err := b.standIn.countRequests(ctx)
		return requests >= b.steadyCycles*b.tokens, err
	}); err != nil {
		return err
	}
	if err := b.standIn.setLife(ctx, longLife); err != nil {
		return err
	}
	return b.awaitTokens(ctx, operator, b.tokens, holdsLong)
}

// refreshAllDue starts the operator when all tokens are due, as after an outage of a few minutes.
func (b *bench) refreshAllDue(ctx context.Context) (row, error) {
	if err := b.makeAllDue(ctx); err != nil {
		return row{}, err
	}
	r, err := b.meterServing(ctx, func() (*child, error) { return b.startOperator(unpaced...) })
	if err != nil {
		return row{}, err
	}
	b.promise(r.requests == b.tokens, "one token request for each of %d tokens that are due: %d", b.tokens, r.requests)
	b.promiseRefreshes(r)
	return r, nil
}

// makeAllDue leaves tokens that were not replaced when it was time, for want of an operator.
func (b *bench) makeAllDue(ctx context.Context) (err error) {
	if err := b.standIn.setLife(ctx, b.dueLife); err != nil {
		return err
	}
	operator, err := b.startOperator(unpaced...)
	if err != nil {
		return err
	}
	request := time.Now().Format(time.RFC3339Nano)
	err = inParallel(ctx, b.tokens, func(ctx context.Context, i int) error { return b.requestRefresh(ctx, keyOf(i), request) })
	due := time.Now()
	if err == nil {
		err = b.awaitTokens(ctx, operator, b.tokens, func(token *v1alpha1.SFMCToken) bool {
			if token.Status.LastHandledRefreshRequest != request {
				return false
			}
			if token.Status.RefreshAt.After(due) {
				due = token.Status.RefreshAt.Time
			}
			return true
		})
	}
	if err = errors.Join(err, operator.stop(), b.standIn.setLife(ctx, longLife)); err != nil {
		return err
	}
	return poll(ctx, 100*time.Millisecond, func() (bool, error) {
		return time.Now().After(due.Add(time.Second)), nil // the status has full seconds
	})
}
