package localcluster

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func writeProgram(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestTheAssetsFolderIsUsedIfItHoldsAllPrograms(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", dir)
	for _, p := range programs {
		writeProgram(t, dir, p.name)
	}
	g.Expect(Binaries(t.Context())).To(Equal(dir))
}

func TestAnAssetsFolderThatLacksProgramsIsRefusedByName(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", dir)
	writeProgram(t, dir, "etcd")
	writeProgram(t, dir, "kubectl")
	_, err := Binaries(t.Context())
	g.Expect(err).To(MatchError(And(
		ContainSubstring("lacks kube-apiserver, kube-controller-manager"),
		ContainSubstring("unset KUBEBUILDER_ASSETS"))))

	_, err = Start(t.Context(), Options{AssetsDir: dir})
	g.Expect(err).To(MatchError(ContainSubstring("leave AssetsDir empty")))
}

func TestOutsideTheRepositoryItSaysWhatToDo(t *testing.T) {
	g := NewWithT(t)
	t.Setenv("KUBEBUILDER_ASSETS", "")
	t.Chdir(t.TempDir())
	_, err := Binaries(t.Context())
	g.Expect(err).To(MatchError(ContainSubstring("run this inside the sfmctoken-operator repository")))
}

func TestTheCacheFolderIsNamedAfterTheVersionAndWhatWasBuilt(t *testing.T) {
	g := NewWithT(t)
	plan := func(version, sums string) *build {
		module := t.TempDir()
		g.Expect(os.WriteFile(filepath.Join(module, "go.mod"), []byte("module m\n\nrequire k8s.io/kubernetes "+version+"\n"), 0o600)).To(Succeed())
		g.Expect(os.WriteFile(filepath.Join(module, "go.sum"), []byte(sums), 0o600)).To(Succeed())
		g.Expect(os.Mkdir(filepath.Join(module, "containerd"), 0o700)).To(Succeed())
		for _, name := range []string{"go.mod", "go.sum"} {
			g.Expect(os.WriteFile(filepath.Join(module, "containerd", name), nil, 0o600)).To(Succeed())
		}
		b, err := planBuild(t.Context(), module)
		g.Expect(err).NotTo(HaveOccurred())
		return b
	}
	one, two := plan("v1.2.3", "one"), plan("v1.2.3", "two")
	g.Expect(filepath.Base(one.dir)).To(HavePrefix("v1.2.3-"))
	g.Expect(filepath.Base(one.dir)).NotTo(Equal(filepath.Base(two.dir)))
	g.Expect(filepath.Base(plan("v1.2.3", "one").dir)).To(Equal(filepath.Base(one.dir)))
	g.Expect(one.ldflags).To(And(ContainSubstring(".gitVersion=v1.2.3 "), ContainSubstring(".gitMajor=1 "), ContainSubstring(".gitMinor=2")))
}

func TestOneAtATimeHoldsTheLock(t *testing.T) {
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "lock")
	neverTold := func() { t.Error("told to wait for a free lock") }
	unlock, err := lock(t.Context(), path, neverTold)
	g.Expect(err).NotTo(HaveOccurred())

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	told := 0
	_, err = lock(ctx, path, func() { told++ })
	g.Expect(err).To(MatchError(context.DeadlineExceeded))
	g.Expect(told).To(Equal(1))

	unlock()
	unlock, err = lock(t.Context(), path, neverTold)
	g.Expect(err).NotTo(HaveOccurred())
	unlock()
}
