package localcluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// build is one set of programs at one version.
type build struct {
	module, dir, version, ldflags string
}

func planBuild(ctx context.Context, module string) (*build, error) {
	version, err := kubernetesVersion(ctx, module)
	if err != nil {
		return nil, err
	}
	b := &build{module: module, version: version, ldflags: versionFlags(version)}

	hash := sha256.New()
	for _, name := range []string{"go.mod", "go.sum", "containerd/go.mod", "containerd/go.sum"} {
		content, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return nil, fmt.Errorf("%w: restore it with git checkout", err)
		}
		hash.Write(content)
	}
	// A folder shared between machines must not mix up their programs.
	fmt.Fprint(hash, b.ldflags, runtime.GOOS, runtime.GOARCH)
	b.dir = filepath.Join(module, "..", "..", "..", ".cache", "localcluster", fmt.Sprintf("%s-%x", version, hash.Sum(nil)[:6]))
	return b, nil
}

func kubernetesVersion(ctx context.Context, module string) (string, error) {
	var mod struct {
		Require []struct{ Path, Version string }
	}
	if err := goJSON(ctx, module, &mod, "mod", "edit", "-json"); err != nil {
		return "", fmt.Errorf("cannot read %s/go.mod with the go command, which must be on the PATH: %w", module, err)
	}
	for _, r := range mod.Require {
		if r.Path == "k8s.io/kubernetes" {
			return r.Version, nil
		}
	}
	return "", fmt.Errorf("%s/go.mod requires no k8s.io/kubernetes: restore it with git checkout", module)
}

// buildTags leave out what containerd needs C libraries for. Nothing else knows
// them.
const buildTags = "no_btrfs,no_zfs,no_devmapper"

// versionFlags makes the programs tell their version, which a plain go build
// leaves at v0.0.0. kubectl compares it with the server's.
func versionFlags(version string) string {
	flags := []string{"-s", "-w"}
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags,
			"-X "+pkg+".gitVersion="+version,
			"-X "+pkg+".gitMajor="+parts[0],
			"-X "+pkg+".gitMinor="+parts[1])
	}
	return strings.Join(flags, " ")
}

// buildMissing builds what the folder lacks. Each program appears in one rename,
// so whoever sees the file sees all of it.
func (b *build) buildMissing(ctx context.Context, programs []program, progress io.Writer) error {
	if len(missingIn(b.dir, programs)) == 0 {
		return nil
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	unlock, err := lock(ctx, filepath.Join(b.dir, ".lock"), func() {
		fmt.Fprintln(progress, "waiting for another process that builds the control plane")
	})
	if err != nil {
		return err
	}
	defer unlock()

	// Another process may have built them meanwhile.
	missing := missingIn(b.dir, programs)
	done := 0
	for _, p := range programs {
		if !slices.Contains(missing, p.name) {
			continue
		}
		done++
		fmt.Fprintf(progress, "[%d/%d] building %s for a cluster of Kubernetes %s (once; the first time takes minutes)\n", done, len(missing), p.name, b.version)
		started := time.Now()
		if err := b.buildOne(ctx, p, progress); err != nil {
			return fmt.Errorf("building %s: %w", p.name, err)
		}
		fmt.Fprintf(progress, "[%d/%d] built %s in %s\n", done, len(missing), p.name, time.Since(started).Round(time.Second))
	}
	return nil
}

func (b *build) buildOne(ctx context.Context, p program, progress io.Writer) error {
	tmp, err := os.MkdirTemp(b.dir, ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, p.name)

	cmd := exec.CommandContext(ctx, "go", "build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-tags", buildTags, "-ldflags", b.ldflags, "-o", out, p.pkg)
	cmd.Dir = filepath.Join(b.module, p.module)
	// The programs run here, whatever the caller builds for. Compilers that collect less garbage end sooner.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH, "GOGC=400")
	cmd.Stdout, cmd.Stderr = progress, progress
	// An interrupt lets the go command end its compilers; a kill would not.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return errors.Join(err, ctx.Err())
	}
	return os.Rename(out, filepath.Join(b.dir, p.name))
}

// lock takes the file's lock. The kernel gives it back when its owner dies, so
// no stale lock is ever left.
func lock(ctx context.Context, path string, waiting func()) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	told := false
	err = poll(ctx, 200*time.Millisecond, func() (bool, error) {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			if !told {
				told = true
				waiting()
			}
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}
