// Package version tells what a binary was built from, as Go's build recorded it.
package version

import (
	"cmp"
	"fmt"
	"runtime/debug"
	"strings"
)

const unknown = "unknown"

// What the linker sets where the build has no checkout to look at, as in the Dockerfile.
var version, revision string

// Info is what a binary was built from.
type Info struct {
	// Version is that of the module: by the repository's newest tag, or "(devel)" if that isn't known.
	Version string
	// Revision is the commit, with "+dirty" if something else was built than that; "unknown" if it was no checkout.
	Revision string
	// GoVersion is that of the toolchain.
	GoVersion string
}

// Get returns what this binary was built from.
func Get() Info {
	build, _ := debug.ReadBuildInfo()
	info := of(build)
	info.Version, info.Revision = cmp.Or(version, info.Version), cmp.Or(revision, info.Revision)
	return info
}

func of(build *debug.BuildInfo) Info {
	if build == nil {
		return Info{unknown, unknown, unknown}
	}
	settings := map[string]string{}
	for _, setting := range build.Settings {
		settings[setting.Key] = setting.Value
	}
	info := Info{cmp.Or(build.Main.Version, unknown), cmp.Or(settings["vcs.revision"], unknown), build.GoVersion}
	if settings["vcs.modified"] == "true" {
		info.Revision += "+dirty"
	}
	return info
}

// String is one line for people.
func (i Info) String() string {
	return fmt.Sprintf("%s (commit %s, %s)", i.Version, i.Revision, i.GoVersion)
}

// UserAgent is how a program of this version names itself to servers.
func (i Info) UserAgent(program string) string { return program + "/" + strings.Trim(i.Version, "()") }
