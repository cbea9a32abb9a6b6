package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
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
		failed <- errors.Join(err, os.WriteFile(filepath.Join(p.dir, what+".kube-apiserver.cpu"), raw, 0o600))
	}()
	return func() error { return errors.Join(<-failed, <-failed) }
}

func (p profiler) save(ctx context.Context, address, path, name string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/debug/pprof/"+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, response.Status)
	}
	return errors.Join(err, os.WriteFile(filepath.Join(p.dir, name), raw, 0o600))
}
