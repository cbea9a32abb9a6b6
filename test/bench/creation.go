package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
)

// identitiesShared is how many identities the SFMCTokens have in the run that shows sharing.
const identitiesShared = 10

// compareCreation has the floor and the operator take turns at creating the first token of each SFMCToken. All
// SFMCTokens are there before either of them starts.
func (b *bench) compareCreation(ctx context.Context) error {
	if err := b.createNamespaces(ctx, theNamespaces()); err != nil {
		return err
	}
	var floors []row
	operators := map[string][]row{}
	for round := range b.rounds {
		say("creating %d tokens, round %d of %d", b.tokens, round+1, b.rounds)
		r, err := b.createByFloor(ctx)
		if err != nil {
			return err
		}
		floors = append(floors, r)
		if err := b.each(func(version operator) error {
			r, err := b.createByOperator(ctx, b.tokens, unpaced...)
			operators[version.name] = append(operators[version.name], r)
			return err
		}); err != nil {
			return err
		}
	}
	name := fmt.Sprintf("%d new tokens", b.tokens)
	b.addRow(name, median(floors))
	for _, version := range slices.Sorted(maps.Keys(operators)) {
		b.addRow(name, median(operators[version]))
	}
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

func (b *bench) createByFloor(ctx context.Context) (row, error) {
	if err := b.createTokens(ctx, 0, b.tokens, b.tokens); err != nil {
		return row{}, err
	}
	r, err := b.meterServing(ctx, func() (*child, error) {
		worker, err := b.startFloor(ctx)
		if err != nil {
			return nil, err
		}
		return worker, worker.say("create")
	})
	if err != nil {
		return row{}, err
	}
	return r, b.clearField(ctx, r)
}

// createByOperator starts the operator with SFMCTokens of so many identities that have no token yet.
func (b *bench) createByOperator(ctx context.Context, identities int, flags ...string) (row, error) {
	if err := b.createTokens(ctx, 0, b.tokens, identities); err != nil {
		return row{}, err
	}
	r, err := b.meterServing(ctx, func() (*child, error) { return b.startOperator(flags...) })
	if err != nil {
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
	return r, b.clearField(ctx, r)
}

// clearField makes room for the next run, when it is known how large the objects of the last one are.
func (b *bench) clearField(ctx context.Context, r row) error {
	if err := b.recordSizes(ctx, r.subject); err != nil {
		return err
	}
	return b.deleteTokens(ctx, theNamespaces())
}

// median is the run of medium rate.
func median(rows []row) row {
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.rate(), b.rate()) })
	middle := rows[len(rows)/2]
	middle.slowest, middle.fastest = rows[0].rate(), rows[len(rows)-1].rate()
	return middle
}
