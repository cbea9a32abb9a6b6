package test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

func TestThePluginWatches(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	w.Expect(plugin()).To(Succeed())
	person := w.personWho(rights{w.ns: {may("list", own, "sfmctokens"), may("watch", own, "sfmctokens")}})
	w.Eventually(func() int { return w.pluginAs(person, "list", "-o", "name").code }).Should(Equal(0), "the rights have arrived")

	// It is called itself: kubectl would pass no signal on.
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	watching := exec.CommandContext(ctx, filepath.Join(pluginDir(), "kubectl-sfmctoken"), "-w", "-n", w.ns, "--kubeconfig", person) //nolint:gosec // built by the tests
	watching.Env = append(os.Environ(), "KUBERC=off")
	out, stderr := &logs{}, &bytes.Buffer{}
	watching.Stdout, watching.Stderr = out, stderr
	w.Expect(watching.Start()).To(Succeed())
	w.Eventually(out.String).Should(ContainSubstring("\njourneys   True "))
	w.Expect(strings.Fields(strings.Split(out.String(), "\n")[0])).To(Equal(strings.Fields("NAME READY BU EXPIRES NEXT REFRESH PROBLEM")))
	change(w, w.get("journeys"), func(token *v1alpha1.SFMCToken) { token.Spec.Suspend = true })
	w.Eventually(out.String).Should(MatchRegexp(`\njourneys +True .*Suspended: `))
	w.Expect(admin.Delete(w.ctx, w.get("journeys"))).To(Succeed())
	w.Eventually(out.String).Should(HaveSuffix(" (deleted)\n"))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, line := range lines[1:] {
		w.Expect(strings.Index(line, "510004567")).To(Equal(strings.Index(lines[0], "BU")), "columns stay where they are")
	}
	w.Expect(watching.Process.Signal(syscall.SIGINT)).To(Succeed())
	w.Expect(watching.Wait()).To(Succeed(), stderr.String())

	w.Expect(w.pluginAs(person, "-w", "-o", "json").err).To(ContainSubstring("--watch prints the table"))
}
