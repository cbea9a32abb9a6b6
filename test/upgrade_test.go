package test

import (
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
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/crdify/pkg/config"
	"sigs.k8s.io/crdify/pkg/runner"
	"sigs.k8s.io/crdify/pkg/validations"
	"sigs.k8s.io/yaml"

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
	build.Dir = source
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
	strict, err := config.Load("") // by default it minds everything
	g.Expect(err).NotTo(HaveOccurred())
	compare, err := runner.New(strict, runner.DefaultRegistry())
	g.Expect(err).NotTo(HaveOccurred())
	before := checkOut(t, versionBefore)
	kinds, err := filepath.Glob(harness.Path("config", "crd", "bases", "*.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(kinds).To(HaveLen(2))
	read := func(path string) *apiextensionsv1.CustomResourceDefinition {
		raw, err := os.ReadFile(path) //nolint:gosec // of this repository
		g.Expect(err).NotTo(HaveOccurred())
		var kind apiextensionsv1.CustomResourceDefinition
		g.Expect(yaml.UnmarshalStrict(raw, &kind)).To(Succeed())
		return &kind
	}
	found := map[string]string{}
	note := func(where string, results []validations.ComparisonResult) {
		for _, r := range results {
			if len(r.Errors) > 0 && r.Name != "description" {
				found[where+" "+r.Name] = strings.Join(r.Errors, "\n")
			}
		}
	}
	for _, kind := range kinds {
		said := compare.Run(read(filepath.Join(before, "config", "crd", "bases", filepath.Base(kind))), read(kind))
		g.Expect(said.CRDValidation).NotTo(BeEmpty())
		note("kind", said.CRDValidation)
		for _, versions := range []map[string]map[string][]validations.ComparisonResult{said.SameVersionValidation, said.ServedVersionValidation} {
			for _, properties := range versions {
				for property, results := range properties {
					note(property, results)
				}
			}
		}
	}
	g.Expect(slices.Sorted(maps.Keys(found))).To(Equal(slices.Sorted(maps.Keys(narrowed))), "%v", found)
}
