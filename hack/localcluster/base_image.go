package localcluster

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
)

// archived is an image in the manifest.json of an archive.
type archived struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// baseImage is what a layer is put on.
type baseImage struct {
	config     map[string]any
	layerNames []string
	layers     [][]byte
}

// base is the image that From has, or one without any layer.
func (i Image) base() (*baseImage, error) {
	if i.From != "" {
		return readBaseImage(i.From)
	}
	return &baseImage{config: map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": i.Entrypoint, "User": i.User, "Env": i.Env},
		"rootfs":       map[string]any{"type": "layers"},
	}}, nil
}

func readBaseImage(archive string) (*baseImage, error) {
	files, err := readTar(archive)
	if err != nil {
		return nil, fmt.Errorf("reading the image %s: %w", archive, err)
	}
	var images []archived
	if err := json.Unmarshal(files["manifest.json"], &images); err != nil || len(images) != 1 {
		return nil, fmt.Errorf("%s is not the archive of one image", archive)
	}
	b := &baseImage{layerNames: images[0].Layers}
	if err := json.Unmarshal(files[images[0].Config], &b.config); err != nil {
		return nil, fmt.Errorf("reading the image %s: %w", archive, err)
	}
	for _, name := range b.layerNames {
		layer, found := files[name]
		if !found {
			return nil, fmt.Errorf("%s lacks its layer %s", archive, name)
		}
		b.layers = append(b.layers, layer)
	}
	return b, nil
}

// configWith is the configuration with one layer more.
func (b *baseImage) configWith(layer string) ([]byte, error) {
	rootfs, ok := b.config["rootfs"].(map[string]any)
	if !ok {
		return nil, errors.New("the image's configuration has no rootfs")
	}
	layers, _ := rootfs["diff_ids"].([]any)
	rootfs["diff_ids"] = append(layers, layer)
	history, _ := b.config["history"].([]any)
	b.config["history"] = append(history, map[string]any{"created_by": "hack/localcluster"})
	return json.Marshal(b.config)
}

// readTar reads all files of an archive.
func readTar(name string) (map[string][]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	found := map[string][]byte{}
	for reader := tar.NewReader(file); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if found[header.Name], err = io.ReadAll(reader); err != nil {
			return nil, err
		}
	}
}
