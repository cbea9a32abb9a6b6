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
  localcluster build [VERSION]
                       build the control plane's programs if needed and print their folder; VERSION: of Kubernetes, as 1.33
  localcluster up      start a control plane and run it until Ctrl-C
  localcluster build-node, localcluster up-node
                       the same with a node that runs pods; they need root on Linux, with Debian's packages
  localcluster build-image
                       build the operator's image without docker and print its file; needs the same
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	hasVersion := len(args) == 2 && args[0] == "build"
	if len(args) != 1 && !hasVersion {
		return fmt.Errorf("one command is needed.\n%s", usage)
	}
	if args[0] == "up-node" { // before signals are caught, which its first stage passes on
		if err := localcluster.Isolate(prepareNode); err != nil {
			return err
		}
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	switch args[0] {
	case "build":
		if hasVersion {
			return build(ctx, func(ctx context.Context) (string, error) { return localcluster.BinariesOf(ctx, args[1]) })
		}
		return build(ctx, localcluster.Binaries)
	case "build-node":
		return build(ctx, localcluster.NodeBinaries)
	case "build-image":
		return build(ctx, func(ctx context.Context) (string, error) {
			return localcluster.BuildOperatorImage(ctx, os.Stderr)
		})
	case "up":
		return up(ctx)
	case "up-node":
		return upNode(ctx)
	case "help", "-h", "--help":
		fmt.Print(usage)
		return nil
	default:
		return fmt.Errorf("unknown command %q.\n%s", args[0], usage)
	}
}

func build(ctx context.Context, what func(context.Context) (string, error)) error {
	path, err := what(ctx)
	if err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

func prepareNode(ctx context.Context) error {
	_, err := localcluster.NodeBinaries(ctx)
	return err
}

func upNode(ctx context.Context) error {
	cluster, err := localcluster.Start(ctx, localcluster.Options{Out: os.Stderr, Node: true})
	if err != nil {
		return err
	}
	fmt.Printf("%s env KUBECONFIG=%s PATH=%s:$PATH CONTAINERD_ADDRESS=%s $SHELL\n", cluster.Entrance(), cluster.Kubeconfig(), cluster.AssetsDir(), cluster.ContainerdSocket())
	fmt.Fprintf(os.Stderr, "this command opens a shell in the cluster's namespaces, where logs are in %s, and\n"+
		"\"ctr --namespace=k8s.io images import FILE\" is how images come in; Ctrl-C stops the cluster and removes its data\n", cluster.LogDir())
	<-ctx.Done()
	return cluster.Stop()
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
