// Command release makes of what goreleaser has built, in dist, what else a release has, into dist/release: the image for
// all platforms, JSON schemas of the kinds, and the sums of all files.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.yaml.in/yaml/v3"
)

const out = "dist/release"

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: release VERSION REVISION IMAGE, in the root of the repository after goreleaser")
		os.Exit(2)
	}
	if err := release(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func release(version, revision, image string) error {
	if err := writeImage(version, revision, image); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := writeSchemas(); err != nil {
		return fmt.Errorf("schemas: %w", err)
	}
	for _, published := range []string{"*.tar.gz", "*.zip", "*.cdx.json", "krew/sfmctoken.yaml"} {
		files, err := filepath.Glob(filepath.Join("dist", published))
		if err != nil || len(files) == 0 {
			return errors.Join(err, fmt.Errorf("goreleaser has made no dist/%s", published))
		}
		for _, file := range files {
			if err := os.Rename(file, filepath.Join(out, filepath.Base(file))); err != nil {
				return err
			}
		}
	}
	return writeSums()
}

// binaries are where goreleaser puts the operator, by architecture.
var binaries = map[string]string{
	"amd64": "dist/sfmctoken-operator_linux_amd64_v1/sfmctoken-operator",
	"arm64": "dist/sfmctoken-operator_linux_arm64_v8.0/sfmctoken-operator",
}

// writeImage writes the image as an OCI layout: what `docker buildx build` makes of the Dockerfile, but that the same
// commit always makes the same image.
func writeImage(version, revision, image string) error {
	config, err := readDockerfile(map[string]string{"$VERSION": version, "$REVISION": revision})
	if err != nil {
		return err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range []string{"amd64", "arm64"} {
		layer, err := layerOf(binaries[arch])
		if err != nil {
			return err
		}
		made, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), layer)
		if err != nil {
			return err
		}
		file, err := made.ConfigFile()
		if err != nil {
			return err
		}
		file = file.DeepCopy()
		file.OS, file.Architecture, file.Config = "linux", arch, config
		if made, err = mutate.ConfigFile(mutate.ConfigMediaType(made, types.OCIConfigJSON), file); err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: made, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	path, err := layout.Write("dist/image", empty.Index)
	if err != nil {
		return err
	}
	name := layout.WithAnnotations(map[string]string{
		"io.containerd.image.name": image + ":" + version, "org.opencontainers.image.ref.name": version,
	})
	if err := path.ReplaceIndex(index, match.Name(version), name); err != nil {
		return err
	}
	return writeTar("dist/image", filepath.Join(out, "sfmctoken-operator_image.tar"))
}

// readDockerfile returns what the last stage of the Dockerfile says of the image, so that it is said once.
func readDockerfile(args map[string]string) (v1.Config, error) {
	raw, err := os.ReadFile("Dockerfile")
	if err != nil {
		return v1.Config{}, err
	}
	_, stage, found := strings.Cut(strings.ReplaceAll(string(raw), "\\\n", ""), "\nFROM scratch\n")
	if !found {
		return v1.Config{}, errors.New("the last stage of the Dockerfile isn't FROM scratch")
	}
	config := v1.Config{Labels: map[string]string{}}
	for line := range strings.Lines(stage) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch instruction {
		case "LABEL":
			for _, label := range regexp.MustCompile(`(\S+)="([^"]*)"`).FindAllStringSubmatch(rest, -1) {
				value, isArgument := args[label[2]]
				if !isArgument {
					value = label[2]
				}
				config.Labels[label[1]] = value
			}
		case "USER":
			config.User = rest
		case "ENTRYPOINT":
			if err := json.Unmarshal([]byte(rest), &config.Entrypoint); err != nil {
				return v1.Config{}, err
			}
		case "ARG", "COPY", "":
		default:
			return v1.Config{}, fmt.Errorf("it isn't known what %s in the Dockerfile means for the image", instruction)
		}
	}
	return config, nil
}

// layerOf has the binary alone, without times.
func layerOf(binary string) (v1.Layer, error) {
	content, err := os.ReadFile(binary) //nolint:gosec // one of the table above
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	header := &tar.Header{Name: "sfmctoken-operator", Mode: 0o755, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
	if err := errors.Join(writer.WriteHeader(header), write(writer, content), writer.Close()); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer))
}

func write(to io.Writer, content []byte) error {
	_, err := to.Write(content)
	return err
}

// writeTar writes a folder into an archive without times or owners.
func writeTar(dir, name string) error {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path) //nolint:gosec // written above
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		header := &tar.Header{Name: filepath.ToSlash(inside), Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
		return errors.Join(writer.WriteHeader(header), write(writer, content))
	})
	if err := errors.Join(err, writer.Close()); err != nil {
		return err
	}
	return os.WriteFile(name, archive.Bytes(), 0o644) //nolint:gosec // to be published
}

// writeSchemas writes a JSON schema of each kind, for editors and for checks in Git repositories.
func writeSchemas() error {
	files, err := filepath.Glob("config/crd/bases/*.yaml")
	if err != nil || len(files) == 0 {
		return errors.Join(err, errors.New("no kinds in config/crd/bases"))
	}
	for _, file := range files {
		raw, err := os.ReadFile(file) //nolint:gosec // of this repository
		if err != nil {
			return err
		}
		var kind struct {
			Spec struct {
				Names    struct{ Singular string }
				Versions []struct {
					Name   string
					Schema struct {
						OpenAPIV3Schema map[string]any `yaml:"openAPIV3Schema"`
					}
				}
			}
		}
		if err := yaml.Unmarshal(raw, &kind); err != nil {
			return err
		}
		for _, version := range kind.Spec.Versions {
			forbidUnknown(version.Schema.OpenAPIV3Schema)
			version.Schema.OpenAPIV3Schema["$schema"] = "http://json-schema.org/draft-07/schema#"
			schema, err := json.MarshalIndent(version.Schema.OpenAPIV3Schema, "", "  ")
			if err != nil {
				return err
			}
			name := fmt.Sprintf("%s_%s.json", kind.Spec.Names.Singular, version.Name)
			if err := os.WriteFile(filepath.Join(out, name), schema, 0o644); err != nil { //nolint:gosec // to be published
				return err
			}
		}
	}
	return nil
}

// forbidUnknown has a schema refuse fields that it doesn't know, as the API server does.
func forbidUnknown(schema map[string]any) {
	for _, part := range schema {
		if within, isSchema := part.(map[string]any); isSchema {
			forbidUnknown(within)
		}
	}
	if _, found := schema["properties"].(map[string]any); found && schema["type"] == "object" {
		schema["additionalProperties"] = false
	}
}

// writeSums writes what `sha256sum -c` checks.
func writeSums() error {
	const name = "SHA256SUMS"
	entries, err := os.ReadDir(out)
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, entry := range entries {
		if entry.Name() == name {
			continue
		}
		content, err := os.ReadFile(filepath.Join(out, entry.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), entry.Name())
	}
	return os.WriteFile(filepath.Join(out, name), []byte(sums.String()), 0o644) //nolint:gosec // to be published
}
