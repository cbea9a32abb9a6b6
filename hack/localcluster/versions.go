package localcluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// BinariesOf is Binaries for another version of Kubernetes, such as 1.33: its
// newest patch, with the etcd that it was made for. Go's checksum database vouches
// for it; go.sum does for the usual version alone.
func BinariesOf(ctx context.Context, minor string) (string, error) {
	usual, err := findBinariesModule()
	if err != nil {
		return "", err
	}
	var kubernetes struct{ Version, GoMod string }
	query := "k8s.io/kubernetes@v" + strings.TrimPrefix(minor, "v")
	if err := goJSON(ctx, usual, &kubernetes, "mod", "download", "-json", query); err != nil {
		return "", fmt.Errorf("no Kubernetes %s: %w", minor, err)
	}
	module := filepath.Join(usual, "..", "..", "..", ".cache", "localcluster", "modules", kubernetes.Version)
	if err := writeModule(ctx, module, kubernetes.Version, kubernetes.GoMod); err != nil {
		return "", err
	}
	b := &build{module: module, version: kubernetes.Version, ldflags: versionFlags(kubernetes.Version)}
	b.dir = filepath.Join(module, "bin")
	return b.dir, b.buildMissing(ctx, programs, os.Stderr)
}

// writeModule makes a module that builds the programs, as the binaries' own is
// made: go.mod of Kubernetes names its parts, and which etcd it is for.
func writeModule(ctx context.Context, module, version, goMod string) error {
	if _, err := os.Stat(filepath.Join(module, "go.sum")); err == nil {
		return nil
	}
	var of struct {
		Go      string
		Require []struct{ Path, Version string }
		Replace []struct{ Old struct{ Path string } }
	}
	if err := goJSON(ctx, filepath.Dir(goMod), &of, "mod", "edit", "-json", goMod); err != nil {
		return err
	}
	text := &strings.Builder{}
	fmt.Fprintf(text, "module binaries\n\ngo %s\n\nrequire k8s.io/kubernetes %s\n", of.Go, version)
	for _, required := range of.Require {
		if required.Path == "go.etcd.io/etcd/client/v3" {
			fmt.Fprintf(text, "require go.etcd.io/etcd/server/v3 %s\n", required.Version)
		}
	}
	for _, replaced := range of.Replace {
		fmt.Fprintf(text, "replace %s => %[1]s v0%s\n", replaced.Old.Path, strings.TrimPrefix(version, "v1"))
	}
	imports := &strings.Builder{}
	for _, p := range programs {
		fmt.Fprintf(imports, "import _ %q\n", p.pkg)
	}
	if err := os.MkdirAll(module, 0o755); err != nil {
		return err
	}
	if err := writeFiles(map[string][]byte{
		filepath.Join(module, "go.mod"):   []byte(text.String()),
		filepath.Join(module, "tools.go"): []byte("//go:build tools\n\npackage tools\n\n" + imports.String()),
	}); err != nil {
		return err
	}
	tidy := exec.CommandContext(ctx, "go", "mod", "tidy")
	tidy.Dir, tidy.Env = module, append(os.Environ(), "GOWORK=off")
	if out, err := tidy.CombinedOutput(); err != nil {
		return fmt.Errorf("go mod tidy in %s: %w: %s", module, err, out)
	}
	return nil
}

func goJSON(ctx context.Context, dir string, into any, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return json.Unmarshal(out, into)
}
