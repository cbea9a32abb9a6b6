package test

import (
	"os"
	"os/exec"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

func TestAMalformedProxyIsRefusedAtTheStart(t *testing.T) {
	g := NewWithT(t)
	path, err := harness.Program()
	g.Expect(err).NotTo(HaveOccurred())
	operator := exec.CommandContext(t.Context(), path, "--kubeconfig=/does/not/exist") //nolint:gosec // the binary just built
	operator.Env = append(os.Environ(), "https_proxy=", "HTTPS_PROXY=http://someone:pass-word%zz@proxy.example:3128")
	out, err := operator.CombinedOutput()
	g.Expect(err).To(HaveOccurred())
	g.Expect(string(out)).To(ContainSubstring("HTTPS_PROXY is not the address of a proxy: expected http://HOST:PORT"))
	g.Expect(string(out)).NotTo(ContainSubstring("pass-word"))
}

func TestTheBinarySaysWhatItWasBuiltFromAndRefusesFlagsThatNameNothing(t *testing.T) {
	g := NewWithT(t)
	path, err := harness.Program()
	g.Expect(err).NotTo(HaveOccurred())
	run := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput() //nolint:gosec // the binary just built
		return string(out), err
	}
	said, err := run("--version")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(said).To(MatchRegexp(`^sfmctoken-operator \S+ \(commit [0-9a-f+dirtyunkow]+, go1\.\d+\S*\)\n$`))
	for _, flag := range []string{"--watch-namespaces=", "--watch-namespaces= , ", "--allow-auth-host="} {
		said, err := run(flag)
		g.Expect(err).To(HaveOccurred())
		g.Expect(said).To(ContainSubstring("it names nothing; leave the flag out if nothing is meant"), flag)
	}
}
