package localcluster

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

const parentVariable = "LOCALCLUSTER_TEST_PARENT_LOG"

// TestMain lets the test binary be the parent that gets killed.
func TestMain(m *testing.M) {
	log := os.Getenv(parentVariable)
	if log == "" {
		os.Exit(m.Run())
	}
	child, err := startProcess("sleep", "/bin/sleep", log, []string{"600"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(child.pid)
	<-child.exited
}

func TestChildrenDoNotOutliveAKilledParent(t *testing.T) {
	g := NewWithT(t)
	parent := exec.CommandContext(context.Background(), os.Args[0])
	parent.Env = append(os.Environ(), parentVariable+"="+filepath.Join(t.TempDir(), "log"))
	stdout, err := parent.StdoutPipe()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(parent.Start()).To(Succeed())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	g.Expect(err).NotTo(HaveOccurred())
	status := filepath.Join("/proc", strings.TrimSpace(line), "status")
	g.Expect(os.ReadFile(status)).To(ContainSubstring("sleep"))

	g.Expect(parent.Process.Kill()).To(Succeed())
	g.Expect(parent.Wait()).NotTo(Succeed())
	// Where nobody waits for orphans, a dead one stays as a zombie.
	g.Eventually(func() string {
		content, err := os.ReadFile(status)
		if err != nil {
			return "gone"
		}
		return string(content)
	}).Should(Or(Equal("gone"), ContainSubstring("State:\tZ")))
}
