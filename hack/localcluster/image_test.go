package localcluster

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

func readArchive(g Gomega, content []byte) map[string]*tar.Header {
	found := map[string]*tar.Header{}
	reader := tar.NewReader(bytes.NewReader(content))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		g.Expect(err).NotTo(HaveOccurred())
		found[header.Name] = header
	}
}

func TestAnImageHoldsItsFilesWithTheFoldersAboveThem(t *testing.T) {
	g := NewWithT(t)
	program := filepath.Join(t.TempDir(), "program")
	g.Expect(os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700)).To(Succeed())
	image := Image{
		Files: map[string]string{"/usr/bin/program": program},
		Texts: map[string]string{"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"},
		Links: map[string]string{"bin": "usr/bin"},
		Dirs:  []string{"/tmp"},
	}
	layer, err := image.layer()
	g.Expect(err).NotTo(HaveOccurred())
	found := readArchive(g, layer)
	g.Expect(found).To(And(HaveLen(7), HaveKey("usr/"), HaveKey("usr/bin/"), HaveKey("etc/")))
	g.Expect(found["usr/bin/program"].Mode).To(BeEquivalentTo(0o755))
	g.Expect(found["etc/passwd"].Mode).To(BeEquivalentTo(0o644))
	g.Expect(found["tmp/"].Mode).To(BeEquivalentTo(0o1777))
	g.Expect(found["bin"].Linkname).To(Equal("usr/bin"))
}

func TestTheSameFilesMakeTheSameImage(t *testing.T) {
	g := NewWithT(t)
	image := Image{Name: "docker.io/local/texts:1", Texts: map[string]string{"a": "1", "b": "2", "c/d": "3", "e/f": "4"}}
	var one, two bytes.Buffer
	g.Expect(image.Write(&one)).To(Succeed())
	g.Expect(image.Write(&two)).To(Succeed())
	g.Expect(one.Bytes()).To(Equal(two.Bytes()))
	g.Expect(readArchive(g, one.Bytes())).To(And(HaveLen(3), HaveKey("manifest.json")))
}

func TestAnImageCanBePutOnAnother(t *testing.T) {
	g := NewWithT(t)
	archive := filepath.Join(t.TempDir(), "base.tar")
	base := Image{Name: "docker.io/local/base:1", Texts: map[string]string{"a": "1"}, Entrypoint: []string{"/a"}, User: "1:1"}
	g.Expect(base.WriteFile(archive)).To(Succeed())
	var content bytes.Buffer
	g.Expect(Image{Name: "docker.io/local/more:1", From: archive, Texts: map[string]string{"b": "2"}}.Write(&content)).To(Succeed())
	g.Expect(readArchive(g, content.Bytes())).To(HaveLen(4), "two layers, configuration and manifest")

	more := filepath.Join(t.TempDir(), "more.tar")
	g.Expect(os.WriteFile(more, content.Bytes(), 0o600)).To(Succeed())
	read, err := readBaseImage(more)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(read.config).To(HaveKeyWithValue("config", And(HaveKeyWithValue("Entrypoint", ConsistOf("/a")), HaveKeyWithValue("User", "1:1"))))
	g.Expect(read.config).To(HaveKeyWithValue("rootfs", HaveKeyWithValue("diff_ids", HaveExactElements("sha256:"+digest(read.layers[0]), "sha256:"+digest(read.layers[1])))))
	g.Expect(readArchive(g, read.layers[1])).To(HaveKey("b"))
}

func TestWhatIsNoImageIsRefused(t *testing.T) {
	g := NewWithT(t)
	archive := filepath.Join(t.TempDir(), "no.tar")
	g.Expect(os.WriteFile(archive, make([]byte, 1024), 0o600)).To(Succeed()) // an empty archive
	g.Expect(Image{From: archive}.Write(io.Discard)).To(MatchError(ContainSubstring("is not the archive of one image")))
}

func TestANodeIsRefusedOutsideOfNamespacesOfItsOwn(t *testing.T) {
	g := NewWithT(t)
	_, err := Start(t.Context(), Options{Node: true})
	g.Expect(err).To(MatchError(ContainSubstring("call localcluster.Isolate")))
}
