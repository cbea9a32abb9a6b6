package flux

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// teamFile is the team's part of the layout.
const teamFile = "team-emea/sfmctoken.yaml"

func TestTheLayoutGetsThereAndNeverDrifts(t *testing.T) {
	w := newFleet(t)
	for _, name := range []string{system, operator, platform, team} {
		w.Eventually(w.ready(name)).Should(BeTrue(), name)
	}
	w.Expect(w.fleet.run("git", "log", "--patch", "--all")).NotTo(ContainSubstring(w.secret), "what is in Git is encrypted")

	const rounds = 3
	for round := range rounds {
		// A new token each time: the operator writes the status and the Secret, and a person the annotation.
		w.requestRefresh(time.Now().Format(time.RFC3339Nano))
		w.Eventually(w.sfmc.Count).Should(Equal(round + 2))
		for _, name := range []string{operator, platform, team} {
			w.again(name)
			w.Expect(w.ready(name)()).To(BeTrue(), name)
		}
	}
	created, unchanged := w.appliedSoFar()
	w.Expect(created).To(HaveKey("SFMCToken/marketing-emea/journeys"))
	w.Expect(created).To(HaveEach(1), "each object is created once")
	w.Expect(unchanged["SFMCToken/marketing-emea/journeys"]).To(BeNumerically(">=", rounds))
	w.Expect(unchanged["Secret/sfmc-platform/sfmc-package"]).To(BeNumerically(">=", rounds))
	w.Expect(unchanged["CustomResourceDefinition/sfmctokens.sfmctoken.dev"]).To(BeNumerically(">=", rounds))
}

// appliedSoFar counts what kustomize-controller says that it did. Neither "configured" nor anything else may occur.
func (w *world) appliedSoFar() (created, unchanged map[string]int) {
	created, unchanged = map[string]int{}, map[string]int{}
	for line := range strings.Lines(w.applied.String()) {
		if !strings.Contains(line, "server-side apply") {
			continue
		}
		var entry struct {
			Output map[string]string `json:"output"`
		}
		w.Expect(json.Unmarshal([]byte(line), &entry)).To(Succeed())
		for object, action := range entry.Output {
			switch action {
			case "created":
				created[object]++
			case "unchanged":
				unchanged[object]++
			default:
				w.t.Errorf("%s was %s", object, action)
			}
		}
	}
	return created, unchanged
}

func (w *world) requestRefresh(value string) {
	patch := client.RawPatch("application/merge-patch+json",
		[]byte(`{"metadata":{"annotations":{"`+v1alpha1.RefreshRequestedAtAnnotation+`":"`+value+`"}}}`))
	w.Expect(w.admin.Patch(w.ctx, w.journeys(), patch)).To(Succeed())
}

// TestTheWrongOrderGetsThere takes dependsOn away, and pushes what needs the rest first.
func TestTheWrongOrderGetsThere(t *testing.T) {
	w := newWorld(t)
	folder := filepath.Join(w.fleet.dir, "clusters", "production")
	later := filepath.Join(t.TempDir(), "production")
	w.fleet.replace("clusters/production/platform.yaml", "  dependsOn:\n  - name: "+operator+"\n", "")
	w.fleet.replace("clusters/production/team-emea.yaml", "  dependsOn:\n  - name: "+platform+"\n", "")
	for _, file := range []string{"team-emea.yaml", "platform.yaml"} {
		w.fleet.replace("clusters/production/"+file, "retryInterval: 1m", "retryInterval: 1s")
	}
	w.Expect(os.CopyFS(later, os.DirFS(folder))).To(Succeed())
	add := func(file string) {
		raw, err := os.ReadFile(filepath.Join(later, file)) //nolint:gosec // of this repository
		w.Expect(err).NotTo(HaveOccurred())
		w.Expect(os.WriteFile(filepath.Join(folder, file), raw, 0o600)).To(Succeed()) //nolint:gosec // of this test
	}
	w.fleet.run("rm", filepath.Join(folder, "platform.yaml"), filepath.Join(folder, "operator.yaml"))
	w.bootstrap()
	w.Eventually(w.condition(team, "Ready")).Should(HavePrefix("Ready=False ReconciliationFailed"), "its namespace and kind aren't there")
	add("platform.yaml")
	w.commit("The platform")
	w.Eventually(w.condition(platform, "Ready")).Should(HavePrefix("Ready=False ReconciliationFailed"), "the kind of its grant isn't there")
	add("operator.yaml")
	w.commit("The operator")
	w.startOperator()
	w.Eventually(w.ready(team)).Should(BeTrue())
	w.Eventually(w.ready(platform)).Should(BeTrue())
	w.Expect(w.alive()).To(BeTrue())
}

func TestWaitEndsWhenTheTokenIsValid(t *testing.T) {
	w := newWorld(t)
	w.sfmc.AddFaults(sfmctest.Fault{Status: 503, Times: sfmctest.Forever})
	w.bootstrap()
	w.startOperator()
	w.Eventually(w.condition(team, "Healthy")).Should(HavePrefix("Healthy=Unknown Progressing"))
	// Attempts come ever later: Flux has looked several times by then.
	w.Eventually(func() int32 { return w.journeys().Status.ConsecutiveFailures }).Should(BeNumerically(">=", 5))
	w.Expect(w.tokenSays("Reconciling")()).To(Equal("Reconciling=True EndpointUnavailable"))
	w.Expect(w.condition(team, "Healthy")()).To(HavePrefix("Healthy=Unknown Progressing"))
	w.Expect(w.ready(team)()).To(BeFalse())
	w.sfmc.ClearFaults()
	w.Eventually(w.ready(team)).Should(BeTrue())
	w.Expect(w.alive()).To(BeTrue())
}

func TestAFailureThatPassesHoldsNothingUp(t *testing.T) {
	w := newFleet(t)
	w.sfmc.AddFaults(sfmctest.Fault{Status: 503, Times: sfmctest.Forever})
	w.requestRefresh("now")
	w.Eventually(w.tokenSays("RefreshFailing")).Should(Equal("RefreshFailing=True EndpointUnavailable"))
	w.again(team)
	w.Expect(w.condition(team, "Healthy")()).To(HavePrefix("Healthy=True"))
	w.Expect(w.tokenSays("RefreshFailing")()).To(Equal("RefreshFailing=True EndpointUnavailable"), "it failed all the time")
	w.Expect(w.alive()).To(BeTrue())
}

func TestASuspendedTokenHoldsNothingUpNotEvenWhenItHasExpired(t *testing.T) {
	w := newFleet(t)
	w.sfmc.ChangeMode(func(m *sfmctest.Mode) { m.ExpiresIn, m.Life = 10*time.Second, 10*time.Second })
	w.requestRefresh("now")
	w.Eventually(w.sfmc.Count).Should(BeNumerically(">", 1))
	w.fleet.replace(teamFile, "spec:\n", "spec:\n  suspend: true\n")
	revision := w.commit("Suspend")
	w.Eventually(w.appliedRevision(team)).Should(Equal(revision))
	w.Eventually(w.tokenSays("Ready")).Should(Equal("Ready=False Suspended"))
	w.again(team)
	w.Expect(w.condition(team, "Healthy")()).To(HavePrefix("Healthy=True"))
	w.Expect(w.tokenSays("Ready")()).To(Equal("Ready=False Suspended"))
}

// early is what Flux says when it ended a wait before its timeout.
const early = "failed early due to stalled resources: [SFMCToken/marketing-emea/journeys status: 'Failed'"

func TestStalledFailsAtOnceAndACommitRepairsIt(t *testing.T) {
	w := newFleet(t)
	w.fleet.replace(teamFile, w.account, "510004567")
	w.commit("A business unit that isn't granted")
	w.Eventually(w.condition(team, "Ready")).Should(And(HavePrefix("Ready=False HealthCheckFailed"), ContainSubstring(early)))
	w.Expect(w.tokenSays("Stalled")()).To(Equal("Stalled=True AccessDenied"))
	w.fleet.replace(teamFile, "510004567", w.account)
	revision := w.commit("One that is")
	w.Eventually(w.appliedRevision(team)).Should(Equal(revision))
	w.Expect(w.alive()).To(BeTrue())
}

func TestStalledFailsWhileTheOldTokenIsValid(t *testing.T) {
	w := newFleet(t)
	w.sfmc.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient, Times: sfmctest.Forever})
	w.requestRefresh("now")
	w.Eventually(w.tokenSays("Stalled")).Should(Equal("Stalled=True RequestRefused"))
	w.Expect(w.alive()).To(BeTrue())
	w.again(team)
	w.Eventually(w.condition(team, "Ready")).Should(And(HavePrefix("Ready=False HealthCheckFailed"), ContainSubstring(early)))
}

func TestRevocationByACommitEmptiesTheTarget(t *testing.T) {
	w := newFleet(t)
	w.fleet.replace("platform/kustomization.yaml", "- grant.yaml\n", "")
	w.fleet.run("git", "rm", "--quiet", "platform/grant.yaml")
	w.commit("Revoke")
	w.Eventually(w.held).Should(BeEmpty(), "the Secret stays, for those who mount it")
	w.Eventually(w.condition(team, "Ready")).Should(And(HavePrefix("Ready=False HealthCheckFailed"), ContainSubstring(early)))
	w.Expect(w.tokenSays("Stalled")()).To(Equal("Stalled=True AccessDenied"))
	w.fleet.run("git", "revert", "--no-commit", "HEAD")
	w.commit("Grant again")
	w.Eventually(w.ready(team)).Should(BeTrue())
	w.Expect(w.alive()).To(BeTrue())
	w.Expect(w.sfmc.Count()).To(Equal(1), "it is the same token, which is still valid")
}
