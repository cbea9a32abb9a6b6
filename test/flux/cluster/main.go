// Command cluster runs a control plane with the operator and the stand-in for Marketing Cloud, for tests in modules
// that can't import the harness. It says in one line of JSON where they are, and runs until its standard input is
// closed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/flux/layout"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	pkg, _, err := layout.Package()
	if err != nil {
		return err
	}
	standIn, err := sfmctest.NewServer(sfmctest.Options{Packages: []sfmctest.Package{pkg}})
	if err != nil {
		return err
	}
	defer standIn.Close()
	shared, err := harness.Start(ctx, localcluster.Options{})
	if err != nil {
		return err
	}
	return errors.Join(serve(shared, standIn), shared.Cluster.Stop())
}

// serve returns when the standard input is closed, as it is when its owner has ended, however.
func serve(shared harness.Shared, standIn *sfmctest.Server) error {
	dir, err := os.MkdirTemp("", "operator-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	defer harness.RemoveProgram()
	operator, err := harness.StartProcess(harness.ProcessOptions{
		Config: shared.Operator, Dir: dir, AuthHosts: []string{standIn.Host()}, CA: standIn.CACert(), Log: &harness.Log{},
	})
	if err != nil {
		return err
	}
	defer operator.Kill()
	where := map[string]string{
		"kubeconfig": shared.Cluster.Kubeconfig(), "url": standIn.URL(), "ca": string(standIn.CACert()),
	}
	if err := json.NewEncoder(os.Stdout).Encode(where); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
