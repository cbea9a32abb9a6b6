package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// versionBefore is what an upgrade begins with: the newest tag, once there is one.
const versionBefore = "c904f87"

// checkOut returns a folder with the sources of a commit.
func checkOut(t *testing.T, commit string) string {
	t.Helper()
	dir := t.TempDir()
	command := fmt.Sprintf("git -C %q archive %s | tar -x -C %q", harness.Path(), commit, dir)
	out, err := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", command).CombinedOutput() //nolint:gosec // of this test
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), "the history of this repository must be there: %s", out)
	return dir
}

// upgraded is a cluster in which two versions of the operator take turns.
type upgraded struct {
	*world
	running *process
}

// runs has a version work instead of the one before, as kubectl apply does: the manifests first.
func (u *upgraded) runs(source string) {
	u.t.Helper()
	_, err := cluster.Kubectl(u.ctx, "apply", "--server-side", "--force-conflicts", "-k", filepath.Join(source, "config", "default"))
	u.Expect(err).NotTo(HaveOccurred())
	binary := filepath.Join(u.t.TempDir(), "sfmctoken-operator")
	build := exec.CommandContext(u.ctx, "go", "build", "-o", binary, "./cmd") //nolint:gosec // of this test
	build.Dir, build.Env = source, append(os.Environ(), "GOFLAGS=-buildvcs=false")
	out, err := build.CombinedOutput()
	u.Expect(err).NotTo(HaveOccurred(), "%s", out)
	account, err := cluster.ServiceAccountConfig(u.ctx, harness.SystemNamespace, harness.ServiceAccount)
	u.Expect(err).NotTo(HaveOccurred())
	if u.running != nil {
		u.Expect(u.terminate(u.running)).To(Equal(0))
	}
	log := &harness.Log{}
	running, err := harness.StartProcess(harness.ProcessOptions{
		Binary: binary, Config: account, Dir: u.t.TempDir(), AuthHosts: []string{u.sfmc.Host()}, CA: u.sfmc.CACert(), Log: log,
	})
	u.Expect(err).NotTo(HaveOccurred())
	u.t.Cleanup(running.Kill)
	u.running = &process{running, log}
}

// tokens are those in the target Secrets, by name.
func (u *upgraded) tokens() map[string]string {
	u.t.Helper()
	var secrets corev1.SecretList
	u.Expect(admin.List(u.ctx, &secrets, client.InNamespace(u.ns), client.MatchingLabels{managedBy: "sfmctoken-operator"})).To(Succeed())
	found := map[string]string{}
	for _, secret := range secrets.Items {
		found[secret.Name] = string(secret.Data["access_token"])
	}
	return found
}

// hasLookedAtAll waits until the version that runs has looked at each SFMCToken: of a new spec it takes note.
func (u *upgraded) hasLookedAtAll() {
	u.t.Helper()
	var tokens v1alpha1.SFMCTokenList
	u.Expect(admin.List(u.ctx, &tokens, client.InNamespace(u.ns))).To(Succeed())
	for i := range tokens.Items {
		change(u.world, &tokens.Items[i], func(token *v1alpha1.SFMCToken) {
			token.Spec.RefreshBefore = &metav1.Duration{Duration: token.RefreshBefore() + time.Second}
		})
	}
	u.Eventually(func(g Gomega) {
		g.Expect(admin.List(u.ctx, &tokens, client.InNamespace(u.ns))).To(Succeed())
		for i := range tokens.Items {
			g.Expect(tokens.Items[i].Status.ObservedGeneration).To(Equal(tokens.Items[i].Generation))
			g.Expect(condition(&tokens.Items[i], "Ready")).To(Equal(valid))
		}
	}, patience, time.Second).Should(Succeed())
}

func TestAnUpgradeAndADowngradeAreNothingToATwoHundredTokens(t *testing.T) {
	const count = 200
	before := checkOut(t, versionBefore)
	startBareCluster(t, localcluster.Options{CRDs: []string{filepath.Join(before, "config", "crd", "bases")}})
	pkg := harness.Package()
	var accounts []string
	for i := range count {
		accounts = append(accounts, fmt.Sprint(520000000+i))
	}
	pkg.AccountIDs = append(pkg.AccountIDs, accounts...)
	u := &upgraded{world: newRealTimeWorld(t, sfmctest.Options{})}
	u.Expect(u.sfmc.AddPackage(pkg)).To(Succeed())
	u.runs(before)
	for i, account := range accounts {
		u.token(fmt.Sprint("token-", i), func(token *v1alpha1.SFMCToken) {
			token.Spec.AccountID = account
			if i%2 == 1 {
				token.Spec.Target = &v1alpha1.Target{DeletionPolicy: v1alpha1.DeletionPolicyRetain}
			}
		})
	}
	u.Eventually(u.sfmc.Issued).Should(Equal(count))
	u.hasLookedAtAll()
	first := u.tokens()
	u.Expect(first).To(HaveLen(count))
	for _, source := range []string{harness.Path(), before, harness.Path()} {
		u.runs(source)
		u.hasLookedAtAll()
		u.Expect(u.tokens()).To(Equal(first))
		u.Expect(u.sfmc.Count()).To(Equal(count), "no token request")
	}
}

// narrowed are what the kinds take less of than in the version before, and why nobody misses it.
var narrowed = map[string]string{
	"^.spec.scopes[*] unhandled": "a scope with a comma never was one of Salesforce's",
}

func TestTheKindsTakeWhatTheVersionBeforeTook(t *testing.T) {
	g := NewWithT(t)
	crdify, err := builtTool("crdify")()
	g.Expect(err).NotTo(HaveOccurred())
	before := checkOut(t, versionBefore)
	kinds, err := filepath.Glob(harness.Path("config", "crd", "bases", "*.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(kinds).To(HaveLen(2))
	found := map[string]string{}
	for _, kind := range kinds {
		old := filepath.Join(before, "config", "crd", "bases", filepath.Base(kind))
		out, _ := exec.CommandContext(t.Context(), crdify, "file://"+old, "file://"+kind, "--output=json").Output() //nolint:gosec // built by make
		type check struct {
			Name   string
			Errors []string
		}
		var said struct {
			CRDValidation           []check
			SameVersionValidation   map[string]map[string][]check
			ServedVersionValidation map[string]map[string][]check
		}
		g.Expect(json.Unmarshal(out, &said)).To(Succeed(), "%s", out)
		g.Expect(said.CRDValidation).NotTo(BeEmpty())
		note := func(where string, checks []check) {
			for _, c := range checks {
				if len(c.Errors) > 0 && c.Name != "description" {
					found[where+" "+c.Name] = strings.Join(c.Errors, "\n")
				}
			}
		}
		note("kind", said.CRDValidation)
		for _, versions := range []map[string]map[string][]check{said.SameVersionValidation, said.ServedVersionValidation} {
			for _, properties := range versions {
				for property, checks := range properties {
					note(property, checks)
				}
			}
		}
	}
	g.Expect(slices.Sorted(maps.Keys(found))).To(Equal(slices.Sorted(maps.Keys(narrowed))), "%v", found)
}
