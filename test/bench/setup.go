package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// bench is what all measurements share.
type bench struct {
	settings
	operator   operator
	dir        string // temporary files: programs, keys and logs
	cluster    *localcluster.Cluster
	admin      client.WithWatch // a cluster's administrator, who is not measured
	kubeconfig string           // the operator's ServiceAccount, for the floor too
	standIn    *standIn
	rows       []row
	accessRows []row
	sizes      []string // how large the objects are that the floor and the operator write
	broken     []error  // promises that were not kept
}

// prepare builds the programs and starts everything but what is measured.
func prepare(ctx context.Context, s settings) (_ *bench, err error) {
	b := &bench{settings: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.dir, err = os.MkdirTemp("", "sfmctoken-bench-"); err != nil {
		return nil, err
	}
	b.operator = operator{"operator", b.file(operatorProgram)}
	for program, pkg := range map[string]string{operatorProgram: "./cmd", standInProgram: "./hack/sfmc-standin"} {
		say("building %s", program)
		if err := b.build(ctx, program, pkg); err != nil {
			return nil, err
		}
	}
	if b.cluster, err = harness.StartCluster(ctx, localcluster.Options{Out: os.Stderr}); err != nil {
		return nil, err
	}
	if b.admin, err = client.NewWithWatch(b.cluster.Config(), client.Options{Scheme: harness.Scheme}); err != nil {
		return nil, err
	}
	config, err := b.cluster.ServiceAccountConfig(ctx, harness.SystemNamespace, harness.ServiceAccount)
	if err != nil {
		return nil, err
	}
	b.kubeconfig = b.file("kubeconfig")
	if err := localcluster.WriteKubeconfig(config, b.kubeconfig); err != nil {
		return nil, err
	}
	b.standIn, err = b.startStandIn(ctx)
	return b, err
}

// build builds a program of the operator's module with what other builds left in the cache.
func (b *bench) build(ctx context.Context, program, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", b.file(program), pkg) //nolint:gosec // names of this file
	cmd.Dir = harness.Path()
	// An interrupt lets the go command end its compilers; a kill would not.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTimeout
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

func (b *bench) file(name string) string { return filepath.Join(b.dir, name) }

// close ends what prepare started, in any state of it.
func (b *bench) close() error {
	var errs []error
	if b.standIn != nil {
		errs = append(errs, b.standIn.stop())
	}
	if b.cluster != nil {
		errs = append(errs, b.cluster.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(b.dir))...)
}
