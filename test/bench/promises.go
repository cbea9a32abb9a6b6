package main

import (
	"errors"
	"fmt"
)

// promise notes a promise that the operator makes about numbers of requests, if it wasn't kept. The run goes on, so
// that the table shows the rest.
func (b *bench) promise(kept bool, format string, args ...any) {
	if !kept {
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

// brokenPromises is an error if there are any, with what the operator logged last.
func (b *bench) brokenPromises() error {
	if len(b.broken) == 0 {
		return nil
	}
	log, err := lastLines(b.file(operatorLog), 20)
	return errors.Join(append(b.broken, err, errors.New("the operator's last words:\n"+log))...)
}
