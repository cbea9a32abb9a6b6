package localcluster

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// running reports whether there is such a process.
func running(pid int) bool { return syscall.Kill(pid, 0) == nil }

func start(t *testing.T, script string) *process {
	t.Helper()
	p, err := startProcess("script", "/bin/sh", filepath.Join(t.TempDir(), "log"), []string{"-c", script})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(0) })
	return p
}

func TestAProcessThatIgnoresTheRequestToEndIsKilled(t *testing.T) {
	g := NewWithT(t)
	p := start(t, "trap '' TERM; echo ready; while :; do read line; done < /dev/zero")
	g.Eventually(func() string { return lastLines(p.logFile, 1) }).Should(Equal("ready"))
	p.stop(50 * time.Millisecond)
	g.Expect(running(p.pid)).To(BeFalse())
}

func TestAProcessThatEndsBeforeItIsReadyIsReportedWithItsLog(t *testing.T) {
	g := NewWithT(t)
	p := start(t, "echo the reason; exit 3")
	err := p.waitReady(t.Context(), func(context.Context) error { return fmt.Errorf("not yet") })
	g.Expect(err).To(MatchError(And(ContainSubstring("exit status 3"), ContainSubstring("the reason"))))
}

func TestAProcessThatNeverGetsReadyIsReportedWithTheLastAnswer(t *testing.T) {
	g := NewWithT(t)
	p := start(t, "exec sleep 600")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := p.waitReady(ctx, func(context.Context) error { return fmt.Errorf("not yet") })
	g.Expect(err).To(MatchError(ContainSubstring("not yet")))
}

func TestAMissingProgramIsReported(t *testing.T) {
	g := NewWithT(t)
	_, err := startProcess("nothing", filepath.Join(t.TempDir(), "absent"), filepath.Join(t.TempDir(), "log"), nil)
	g.Expect(err).To(MatchError(ContainSubstring("starting nothing")))
}
