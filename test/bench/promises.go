package main

import (
	"errors"
	"fmt"
)

// promise notes a promise that the operator makes about numbers of requests, if it wasn't kept. The run goes on, so
// that the table shows the rest. Of another version nothing is promised.
func (b *bench) promise(kept bool, format string, args ...any) {
	if !kept && b.operator.program == b.file(operatorProgram) {
		b.broken = append(b.broken, fmt.Errorf("not kept: "+format, args...))
	}
}

// promiseRefreshes is that each refresh costs two writes and at most one read.
func (b *bench) promiseRefreshes(r row) {
	b.promise(r.calls.createSecrets == 0 && r.calls.updateSecrets == r.requests && r.calls.patchStatuses == r.requests,
		"two writes for each of %d refreshes: %+v", r.requests, r.calls)
	b.promise(r.calls.reads <= r.requests, "at most one read for each of %d refreshes: %+v", r.requests, r.calls)
	b.promise(r.calls.events == 0, "no event in steady state: %+v", r.calls)
}

// promiseAccess is that a change of access costs each token that it affects two writes, no token request, and, if access
// is given, at most one read.
func (b *bench) promiseAccess(r row, given bool) {
	b.promise(r.requests == 0, "no token request when %s: %d", r.name, r.requests)
	b.promise(r.calls.createSecrets == 0 && r.calls.updateSecrets == r.tokens && r.calls.patchStatuses == r.tokens,
		"two writes for each of %d tokens when %s: %+v", r.tokens, r.name, r.calls)
	if given {
		b.promise(r.calls.reads <= r.tokens, "at most one read for each of %d tokens when %s: %+v", r.tokens, r.name, r.calls)
	} else {
		b.promise(r.calls.reads == 0, "no read when %s: %+v", r.name, r.calls)
	}
	b.promise(r.calls.patchGrants <= r.tokens, "at most one write for each grant when %s: %+v", r.name, r.calls)
}

// brokenPromises is an error if there are any, with what the operator logged last.
func (b *bench) brokenPromises() error {
	if len(b.broken) == 0 {
		return nil
	}
	log, err := lastLines(b.file(operatorLog), 20)
	return errors.Join(append(b.broken, err, errors.New("the operator's last words:\n"+log))...)
}
