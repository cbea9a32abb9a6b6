package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// identitiesShared is how many identities the SFMCTokens have in the run that shows sharing.
const identitiesShared = 10

// compareCreation has the floor and the operator take turns at creating the first token of each SFMCToken. All
// SFMCTokens are there before either of them starts.
func (b *bench) compareCreation(ctx context.Context) error {
	if err := b.createNamespaces(ctx); err != nil {
		return err
	}
	var floors, operators []row
	for round := range b.rounds {
		say("creating %d tokens, round %d of %d", b.tokens, round+1, b.rounds)
		r, err := b.createByFloor(ctx)
		if err != nil {
			return err
		}
		floors = append(floors, r)
		if r, err = b.createByOperator(ctx, b.tokens, unpaced...); err != nil {
			return err
		}
		operators = append(operators, r)
	}
	b.addRow(fmt.Sprintf("%d new tokens", b.tokens), median(floors))
	b.addRow(fmt.Sprintf("%d new tokens", b.tokens), median(operators))
	say("creating %d tokens at the default rate of token requests", b.tokens)
	paced, err := b.createByOperator(ctx, b.tokens)
	if err != nil {
		return err
	}
	b.addRow(fmt.Sprintf("%d new tokens, token requests limited as by default", b.tokens), paced)
	return nil
}

// measureSharing has the operator serve as many SFMCTokens of a few identities.
func (b *bench) measureSharing(ctx context.Context) error {
	say("creating %d tokens of %d identities", b.tokens, identitiesShared)
	r, err := b.createByOperator(ctx, identitiesShared, unpaced...)
	if err != nil {
		return err
	}
	b.addRow(fmt.Sprintf("%d new tokens of %d identities in %d namespaces", b.tokens, identitiesShared, namespaces), r)
	return nil
}

func (b *bench) createByFloor(ctx context.Context) (r row, err error) {
	if err := b.createTokens(ctx, 0, b.tokens, b.tokens); err != nil {
		return row{}, err
	}
	m, err := b.startMeter(ctx, nil)
	if err != nil {
		return row{}, err
	}
	worker, err := b.startFloor(ctx)
	if worker != nil {
		defer func() { err = errors.Join(err, worker.stop()) }()
	}
	if err != nil {
		return row{}, err
	}
	started, err := b.watchTokens(ctx)
	if err != nil {
		return row{}, err
	}
	told := make(chan error, 1)
	go func() { told <- worker.tell(ctx, "create") }()
	ended, err := started.until(ctx, worker, b.tokens, holdsLong)
	if err = errors.Join(err, <-told); err != nil {
		return row{}, err
	}
	return b.endCreation(ctx, m, worker, ended, "floor")
}

// createByOperator starts the operator with SFMCTokens of so many identities that have no token yet.
func (b *bench) createByOperator(ctx context.Context, identities int, flags ...string) (r row, err error) {
	if err := b.createTokens(ctx, 0, b.tokens, identities); err != nil {
		return row{}, err
	}
	m, err := b.startMeter(ctx, nil)
	if err != nil {
		return row{}, err
	}
	started, err := b.watchTokens(ctx)
	if err != nil {
		return row{}, err
	}
	operator, err := b.startOperator(flags...)
	if err != nil {
		return row{}, err
	}
	defer func() { err = errors.Join(err, operator.stop()) }()
	ended, err := started.until(ctx, operator, b.tokens, holdsLong)
	if err != nil {
		return row{}, err
	}
	if r, err = b.endCreation(ctx, m, operator, ended, "operator"); err != nil {
		return row{}, err
	}
	// Who has to wait for a turn says so in the status, which is a write more and a read more.
	if limited := len(flags) == 0; !limited {
		b.promise(r.calls.createSecrets == b.tokens && r.calls.updateSecrets == 0 && r.calls.patchStatuses == b.tokens,
			"two writes for each new token: %+v", r.calls)
		b.promise(r.calls.reads <= b.tokens, "at most one read for each new token: %+v", r.calls)
	}
	b.promise(r.requests == identities && r.identities == identities,
		"one token request for each of %d identities: %d for %d", identities, r.requests, r.identities)
	return r, nil
}

// endCreation reads the meter and clears the field for the next run.
func (b *bench) endCreation(ctx context.Context, m *meter, of *child, ended time.Time, subject string) (row, error) {
	r, err := m.read(ctx, of, ended)
	if err != nil {
		return row{}, err
	}
	r.subject, r.tokens = subject, b.tokens
	if err := b.recordSizes(ctx, subject); err != nil {
		return row{}, err
	}
	return r, b.deleteTokens(ctx)
}

// median is the run of medium rate.
func median(rows []row) row {
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.rate(), b.rate()) })
	middle := rows[len(rows)/2]
	middle.slowest, middle.fastest = rows[0].rate(), rows[len(rows)-1].rate()
	return middle
}
