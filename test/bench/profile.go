package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/client-go/kubernetes"
)

// profiler takes profiles of the operator, which serves them at an address, and of kube-apiserver. It has files for
// `go tool pprof` in a directory; none are taken if there is no such directory.
type profiler struct{ dir string }

// during takes profiles for so long, from now on, and returns a function that waits for them.
func (p profiler) during(ctx context.Context, b *bench, address, what string, lasts time.Duration) (wait func() error) {
	if p.dir == "" {
		return func() error { return nil }
	}
	seconds := strconv.Itoa(int(lasts.Seconds()))
	failed := make(chan error, 2)
	go func() {
		cpu := p.save(ctx, address, "profile?seconds="+seconds, what+".operator.cpu")
		failed <- errors.Join(cpu, p.save(ctx, address, "heap", what+".operator.heap"), p.save(ctx, address, "allocs", what+".operator.allocs"))
	}()
	go func() {
		raw, err := kubernetes.NewForConfigOrDie(b.cluster.Config()).Discovery().RESTClient().Get().AbsPath("/debug/pprof/profile").
			Param("seconds", seconds).DoRaw(ctx)
		if err == nil {
			err = os.WriteFile(filepath.Join(p.dir, what+".kube-apiserver.cpu"), raw, 0o600)
		}
		failed <- err
	}()
	return func() error { return errors.Join(<-failed, <-failed) }
}

func (p profiler) save(ctx context.Context, address, path, name string) error {
	raw, err := fetch(ctx, "http://"+address+"/debug/pprof/"+path)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(p.dir, name), raw, 0o600)
}
