package localcluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Image is a container image that is made without any tool for it: one layer
// with these files.
type Image struct {
	// Name has a registry, a path and a tag: docker.io/library/busybox:latest is
	// what people call busybox.
	Name string
	// From is the archive of an image that the layer is put on, with all that it
	// says of users, environment and programs. By default there is none.
	From string
	// Files are copied from the machine: the key is the path in the image, the
	// value that of the machine's file. Symbolic links are followed. They can be
	// read, and if the machine's can, run by everyone.
	Files map[string]string
	// Texts are files with this content.
	Texts map[string]string
	// Links are symbolic links: the key is the path in the image, the value is
	// what it points to.
	Links map[string]string
	// Dirs are empty folders that everyone may write to.
	Dirs []string
	// Entrypoint, User (uid:gid) and Env (with elements such as PATH=/bin) are those
	// of an image without From.
	Entrypoint []string
	User       string
	Env        []string
}

// Write writes the image as `docker save` would: a tar file that containerd, buildah and
// docker load.
func (i Image) Write(w io.Writer) error {
	base, err := i.base()
	if err != nil {
		return err
	}
	layer, err := i.layer()
	if err != nil {
		return err
	}
	config, err := base.configWith("sha256:" + digest(layer))
	if err != nil {
		return err
	}
	configName, layerName := digest(config)+".json", digest(layer)+".tar"
	manifest, err := json.Marshal([]archived{{Config: configName, RepoTags: []string{i.Name}, Layers: append(base.layerNames, layerName)}})
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	for n, name := range base.layerNames {
		if err := addFile(archive, name, 0o644, base.layers[n]); err != nil {
			return err
		}
	}
	for _, file := range []struct {
		name    string
		content []byte
	}{{configName, config}, {layerName, layer}, {"manifest.json", manifest}} {
		if err := addFile(archive, file.name, 0o644, file.content); err != nil {
			return err
		}
	}
	return archive.Close()
}

// WriteFile is Write to a file.
func (i Image) WriteFile(name string) error {
	var content bytes.Buffer
	if err := i.Write(&content); err != nil {
		return err
	}
	return os.WriteFile(name, content.Bytes(), 0o600)
}

// layer is in alphabetical order, with folders before what is in them and
// without times, so that the same files always make the same image.
func (i Image) layer() ([]byte, error) {
	type entry func(*tar.Writer, string) error
	entries := map[string]entry{}
	for name, source := range i.Files {
		entries[clean(name)] = func(w *tar.Writer, name string) error { return copyFile(w, name, source) }
	}
	for name, text := range i.Texts {
		entries[clean(name)] = func(w *tar.Writer, name string) error { return addFile(w, name, 0o644, []byte(text)) }
	}
	for name, target := range i.Links {
		entries[clean(name)] = func(w *tar.Writer, name string) error {
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, Format: tar.FormatPAX})
		}
	}
	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	for _, name := range names {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			entries[dir] = func(w *tar.Writer, name string) error { return addDir(w, name, 0o755) }
		}
	}
	for _, name := range i.Dirs {
		entries[clean(name)] = func(w *tar.Writer, name string) error { return addDir(w, name, 0o1777) }
	}
	names = names[:0]
	for name := range entries {
		names = append(names, name)
	}
	slices.Sort(names)

	var content bytes.Buffer
	w := tar.NewWriter(&content)
	for _, name := range names {
		if err := entries[name](w, name); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return content.Bytes(), err
}

func clean(name string) string { return strings.TrimPrefix(path.Clean(name), "/") }

func copyFile(w *tar.Writer, name, source string) error {
	content, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	return addFile(w, name, mode, content)
}

func addFile(w *tar.Writer, name string, mode int64, content []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

func addDir(w *tar.Writer, name string, mode int64) error {
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
