// Command localcluster builds and runs a local Kubernetes control plane.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
)

const usage = `Usage:
  localcluster build   build the control plane's programs if needed and print their folder
  localcluster up      start a control plane and run it until Ctrl-C
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if len(args) != 1 {
		return fmt.Errorf("one command is needed.\n%s", usage)
	}
	switch args[0] {
	case "build":
		dir, err := localcluster.Binaries(ctx)
		if err != nil {
			return err
		}
		fmt.Println(dir)
		return nil
	case "up":
		return up(ctx)
	case "help", "-h", "--help":
		fmt.Print(usage)
		return nil
	default:
		return fmt.Errorf("unknown command %q.\n%s", args[0], usage)
	}
}

func up(ctx context.Context) error {
	cluster, err := localcluster.Start(ctx, localcluster.Options{Out: os.Stderr})
	if err != nil {
		return err
	}
	fmt.Printf("export KUBECONFIG=%s\nexport PATH=%s:$PATH\n", cluster.Kubeconfig(), cluster.AssetsDir())
	fmt.Fprintf(os.Stderr, "logs are in %s; Ctrl-C stops the control plane and removes its data\n", cluster.LogDir())
	<-ctx.Done()
	return cluster.Stop()
}
