package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

const (
	operatorProgram = "sfmctoken-operator"
	operatorLog     = "operator.log"
)

// unpaced lifts the limit of token requests per second, which is there for Marketing Cloud's sake: the floor has none.
var unpaced = []string{"--token-requests-per-second=1000000", "--token-requests-burst=1000000"}

// operator is a version of the operator that is measured.
type operator struct{ name, program string }

// each measures something of each version of the operator, one after the other.
func (b *bench) each(measure func(operator) error) error {
	own := b.operator
	defer func() { b.operator = own }()
	for _, version := range []operator{own, {"beside", b.beside}} {
		if version.program == "" {
			continue
		}
		b.operator = version
		if err := measure(version); err != nil {
			return fmt.Errorf("%s: %w", version.name, err)
		}
	}
	return nil
}

// startOperator starts the operator's own program as its ServiceAccount. Without the Lease, there is no wait for it in
// what is measured; everything else but the given flags is as by default.
func (b *bench) startOperator(flags ...string) (*child, error) {
	return startChild(b.operator.name, b.operator.program, b.file(operatorLog), []string{"KUBECONFIG=" + b.kubeconfig}, append(flags,
		"--allow-auth-host="+b.standIn.host(),
		"--ca-file="+b.standIn.caFile,
		"--max-concurrent-reconciles="+strconv.Itoa(b.concurrency),
		"--health-probe-bind-address=0",
	))
}

// startServing starts the operator and returns when n SFMCTokens have a token and it has come to rest.
func (b *bench) startServing(ctx context.Context, n int, flags ...string) (*child, error) {
	operator, err := b.startOperator(flags...)
	if err != nil {
		return nil, err
	}
	if err = b.awaitTokens(ctx, operator, n, holdsLong); err == nil {
		err = waitIdle(ctx, operator)
	}
	if err != nil {
		return nil, errors.Join(err, operator.stop())
	}
	return operator, nil
}

// startFloor starts the floor and returns when it knows its work.
func (b *bench) startFloor(ctx context.Context) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c, err := startChild("floor", self, b.file("floor.log"), nil, []string{
		floorCommand, "-kubeconfig=" + b.kubeconfig, "-ca-file=" + b.standIn.caFile, "-concurrency=" + strconv.Itoa(b.concurrency),
	})
	if err != nil {
		return nil, err
	}
	if _, err = c.readLine(ctx); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// say has the floor do something.
func (c *child) say(command string) error {
	_, err := fmt.Fprintln(c.stdin, command)
	return err
}

// tell has the floor do something and returns when it is done.
func (c *child) tell(ctx context.Context, command string) error {
	if err := c.say(command); err != nil {
		return err
	}
	_, err := c.readLine(ctx)
	return err
}

// refreshCommand has the floor refresh all tokens, one each so often.
func refreshCommand(pace time.Duration) string { return "refresh " + pace.String() }
