package localcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// OperatorImage is the name under which config/ asks for the operator.
const OperatorImage = "docker.io/library/sfmctoken-operator:latest"

// BuildOperatorImage builds the image of the repository that the working
// directory is in, and returns the file that it is in. What makes the next build
// fast is kept under .cache/localcluster.
func BuildOperatorImage(ctx context.Context, progress io.Writer) (string, error) {
	module, err := findBinariesModule()
	if err != nil {
		return "", err
	}
	root := filepath.Join(module, "..", "..", "..")
	cache := filepath.Join(root, ".cache", "localcluster")
	d := Dockerfile{
		Dir:      root,
		Tag:      OperatorImage,
		Archive:  filepath.Join(cache, "sfmctoken-operator.tar"),
		CacheDir: filepath.Join(cache, "buildah"),
		Progress: progress,
		Args:     map[string]string{},
	}
	for name, command := range map[string][]string{
		"VERSION": {"describe", "--tags", "--always", "--dirty"}, "REVISION": {"rev-parse", "HEAD"},
	} {
		// Without git the image doesn't tell what it was built from.
		out, _ := exec.CommandContext(ctx, "git", append([]string{"-C", root}, command...)...).Output()
		d.Args[name] = strings.TrimSpace(string(out))
	}
	return d.Archive, d.Build(ctx)
}

// Dockerfile is an image to be built as its Dockerfile says, on a machine that
// need not reach any registry: the images that it begins from are replaced by
// stand-ins of the same names, which are made from what the machine has.
type Dockerfile struct {
	// Dir is the folder that the Dockerfile is in.
	Dir string
	// Tag is the image's name, as in Image. Archive is the file that it is written
	// to, for ImportImage.
	Tag, Archive string
	// Args are the build's arguments.
	Args map[string]string
	// CacheDir keeps what makes the next build fast.
	CacheDir string
	// Progress is told what the build prints.
	Progress io.Writer
}

// buildPackages are what Build takes from Debian.
var buildPackages = []string{"buildah", "busybox-static", "ca-certificates"}

const (
	busybox      = "/bin/busybox"
	certificates = "/etc/ssl/certs/ca-certificates.crt"
	// goProxyDir is where a build finds the modules that the machine has, and
	// goCacheDir what the machine has compiled of them.
	goProxyDir = "/go-module-proxy"
	goCacheDir = "/go-build-cache"
)

var fromLine = regexp.MustCompile(`(?mi)^FROM\s+(?:--\S+\s+)*(\S+)`)

// Build builds the image with buildah, as root. Go modules are downloaded before,
// by the machine's own go command and as it is configured; the build takes them
// from there. So it needs no network, and the machine's settings for it stay
// outside of the image.
func (d Dockerfile) Build(ctx context.Context) error {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		return errors.New("building an image without docker needs root on Linux, with Debian's packages; with docker, use make image")
	}
	if err := InstallPackages(ctx, d.Progress, buildPackages...); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(d.Dir, "Dockerfile"))
	if err != nil {
		return err
	}
	for _, dir := range []string{"modules", "tmp"} {
		if err := os.MkdirAll(filepath.Join(d.CacheDir, dir), 0o755); err != nil {
			return err
		}
	}
	for _, from := range fromLine.FindAllStringSubmatch(string(text), -1) {
		if err := d.standIn(ctx, from[1]); err != nil {
			return err
		}
	}
	download := exec.CommandContext(ctx, "go", "mod", "download")
	download.Dir = d.Dir
	if out, err := download.CombinedOutput(); err != nil {
		return fmt.Errorf("go mod download: %w\n%s", err, out)
	}
	machine, err := goEnv(ctx, "GOROOT", "GOMODCACHE", "GOCACHE")
	if err != nil {
		return err
	}
	args := []string{"build", "--isolation=chroot", "--pull-never", "--layers=false", "--tag=" + d.Tag}
	for name, value := range d.Args {
		args = append(args, "--build-arg="+name+"="+value)
	}
	err = d.buildah(ctx, append(args,
		"--build-arg=TARGETOS=linux", "--build-arg=TARGETARCH="+runtime.GOARCH,
		"--volume="+machine[0]+":/usr/local/go:ro",
		"--volume="+filepath.Join(machine[1], "cache", "download")+":"+goProxyDir+":ro",
		"--volume="+machine[2]+":"+goCacheDir,
		"--volume="+filepath.Join(d.CacheDir, "modules")+":/go/pkg/mod",
		d.Dir)...)
	if err != nil {
		return err
	}
	if err := os.Remove(d.Archive); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // buildah does not write over a file
	}
	if err := d.buildah(ctx, "push", "--quiet", d.Tag, "docker-archive:"+d.Archive+":"+d.Tag); err != nil {
		return err
	}
	return d.buildah(ctx, "rmi", "--prune") // what earlier builds had tagged
}

// standIn makes the image that a Dockerfile begins from.
func (d Dockerfile) standIn(ctx context.Context, name string) error {
	var image Image
	switch {
	case strings.HasPrefix(name, "golang:"):
		image = Image{
			Name:  "docker.io/library/" + name,
			Files: map[string]string{"bin/busybox": busybox, certificates: certificates},
			Texts: map[string]string{"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"},
			Links: map[string]string{"bin/sh": "busybox"},
			Dirs:  []string{"tmp"},
			Env: []string{"PATH=/usr/local/go/bin:/bin", "HOME=/root", "GOPATH=/go", "GOTOOLCHAIN=local",
				"GOCACHE=" + goCacheDir, "GOPROXY=file://" + goProxyDir, "GOSUMDB=off"}, // go.sum has every sum
		}
	case name == "scratch":
		return nil
	default:
		return fmt.Errorf("the Dockerfile begins from %s, for which there is no stand-in: add one to Dockerfile.standIn in hack/localcluster", name)
	}
	archive := filepath.Join(d.CacheDir, "tmp", "stand-in.tar")
	if err := image.WriteFile(archive); err != nil {
		return err
	}
	return d.buildah(ctx, "pull", "--quiet", "docker-archive:"+archive)
}

// buildah keeps its images apart from those of the machine.
func (d Dockerfile) buildah(ctx context.Context, args ...string) error {
	flags := []string{"--root=" + filepath.Join(d.CacheDir, "images"), "--runroot=" + filepath.Join(d.CacheDir, "run")}
	cmd := exec.CommandContext(ctx, "buildah", append(flags, args...)...)
	cmd.Env = append(cmd.Environ(), "TMPDIR="+filepath.Join(d.CacheDir, "tmp"))
	cmd.Stdout, cmd.Stderr = d.Progress, d.Progress
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("buildah %s: %w", args[0], err)
	}
	return nil
}

func goEnv(ctx context.Context, names ...string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "go", append([]string{"env"}, names...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n"), nil
}
