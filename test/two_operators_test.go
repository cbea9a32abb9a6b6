package test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// As with two installations, or `make run` beside a cluster.
func TestTwoOperatorsThatSeeTheSameSFMCTokensDontFight(t *testing.T) {
	const life = 6 * time.Second // of tokens, so that both refresh often
	w := newRealTimeWorld(t, sfmctest.Options{ExpiresIn: life, Life: life})
	w.token("journeys")
	first := w.startProcess()
	w.ready("journeys")
	second := w.startProcess("--watch-namespaces", w.ns)

	var held []string
	const says = "another operator asks for the same tokens"
	w.Eventually(func() []bool {
		token := w.held("journeys")
		if len(held) == 0 || token != held[len(held)-1] {
			w.Expect(held).NotTo(ContainElement(token), "a token that was replaced came back")
			held = append(held, token)
		}
		of, alive := w.sfmc.Check(token)
		return []bool{of == "510004567" && alive, strings.Contains(first.log.String(), says),
			strings.Contains(second.log.String(), says)}
	}, patience, 10*time.Millisecond).Should(Equal([]bool{true, true, true}), "both say that they aren't alone")
	w.Expect(len(held)).To(BeNumerically(">", 5), "it was refreshed meanwhile")
	w.Expect(w.sfmc.Count()).To(BeNumerically("<=", 2*len(held)+2), "one request a refresh of each")
	w.Expect(w.terminate(first)).To(Equal(0))
	w.Expect(w.terminate(second)).To(Equal(0))
}
