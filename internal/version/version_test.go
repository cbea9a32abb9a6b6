package version

import (
	"runtime"
	"runtime/debug"
	"testing"

	. "github.com/onsi/gomega"
)

func TestABinaryTellsWhatItWasBuiltFrom(t *testing.T) {
	g := NewWithT(t)
	build := &debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Version: "v0.2.1"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "c904f87"}, {Key: "vcs.modified", Value: "false"},
	}}
	g.Expect(of(build).String()).To(Equal("v0.2.1 (commit c904f87, go1.26.8)"))
	g.Expect(of(build).UserAgent("sfmctoken-operator")).To(Equal("sfmctoken-operator/v0.2.1"))
	g.Expect(Info{Version: "(devel)"}.UserAgent("sfmctoken-operator")).To(Equal("sfmctoken-operator/devel"))
	build.Settings[1].Value = "true"
	g.Expect(of(build).Revision).To(Equal("c904f87+dirty"))
	build.Settings, build.Main.Version = nil, ""
	g.Expect(of(build)).To(Equal(Info{"unknown", "unknown", "go1.26.8"}))
	g.Expect(of(nil).String()).To(Equal("unknown (commit unknown, unknown)"))
	g.Expect(Get().GoVersion).To(Equal(runtime.Version()))
	version, revision = "v0.3.0", "5cff96c"
	defer func() { version, revision = "", "" }()
	g.Expect(Get()).To(Equal(Info{"v0.3.0", "5cff96c", runtime.Version()}), "where the build sees no checkout")
}
