package test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// TestAnAdminOfTwoNamespacesRunsTheOperatorForTheseAlone goes the way of config/namespaced: a cluster administrator
// applies its part once, somebody who is admin of two namespaces and nothing else does the rest.
func TestAnAdminOfTwoNamespacesRunsTheOperatorForTheseAlone(t *testing.T) {
	w := newRealTimeWorld(t, sfmctest.Options{})
	marketing, sales, third := w.ns, w.namespace(), w.namespace()
	_, err := cluster.Kubectl(w.ctx, "apply", "--server-side", "-k", harness.Path("config", "namespaced", "cluster"))
	w.Expect(err).NotTo(HaveOccurred())
	for _, ns := range []string{marketing, sales} {
		w.create(&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "tester"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "tester"}},
		})
	}
	overlay := w.namespacedOverlay(marketing, sales)
	w.Eventually(func() error { // once the controller manager has added the new ClusterRoles to admin
		_, err := cluster.Kubectl(w.ctx, "apply", "--as", "tester", "--server-side", "-k", overlay)
		return err
	}).Should(Succeed())

	for _, ns := range []string{third, marketing, sales} { // the third first, so that it has had its chance
		w.ns = ns
		if ns != marketing { // it has them
			w.create(harness.CredentialsSecret(ns, "sfmc-package", w.sfmc, w.pkg))
		}
		w.token("journeys")
	}
	account, err := cluster.ServiceAccountConfig(w.ctx, marketing, harness.ServiceAccount)
	w.Expect(err).NotTo(HaveOccurred())
	deployment := &appsv1.Deployment{}
	w.Expect(admin.Get(w.ctx, client.ObjectKey{Namespace: marketing, Name: "sfmctoken-operator"}, deployment)).To(Succeed())
	// Outside of a pod, the process can't know its namespace.
	flags := slices.Concat(deployment.Spec.Template.Spec.Containers[0].Args, []string{"--leader-election-namespace", marketing})
	w.startProcessAs(account, flags...)

	for _, w.ns = range []string{marketing, sales} {
		w.ready("journeys")
		change(w, w.secret("journeys"), func(s *corev1.Secret) { s.Data["access_token"] = []byte("garbage") })
		w.Eventually(func() bool { return w.alive(w.held("journeys"), "510004567") }).Should(BeTrue(), "what happens to Secrets is seen")
	}
	w.ns = third
	w.Expect(w.get("journeys").Status).To(Equal(v1alpha1.SFMCTokenStatus{ObservedGeneration: -1}), "never looked at")
	w.Expect(w.secret("journeys")).To(BeNil())
	w.reachesOnly(account, third, marketing, sales)

	// The replica that stands by fills its caches too, or it would never be ready.
	probes, err := harness.FreeAddress()
	w.Expect(err).NotTo(HaveOccurred())
	w.startProcessAs(account, append(flags, "--health-probe-bind-address", probes)...)
	w.Eventually(func() (int, error) {
		response, err := http.Get("http://" + probes + "/readyz")
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}).Should(Equal(http.StatusOK))
}

// TestAWatchThatStandsStillInOneNamespaceHoldsNothingUp: after an outage of the API server a watch may come back a minute
// late, while the watch of another namespace goes on. What the operator wrote in the first one is known all the same.
func TestAWatchThatStandsStillInOneNamespaceHoldsNothingUp(t *testing.T) {
	w := newRealTimeWorld(t, sfmctest.Options{})
	other := w.in(t)
	other.ns = w.namespace()
	other.create(harness.CredentialsSecret(other.ns, "sfmc-package", w.sfmc, w.pkg))
	var still atomic.Bool
	forever := make(chan struct{})
	api := w.apiProxy(operator, func(response *http.Response) {
		query := response.Request.URL.Query()
		if query.Has("watch") && response.Request.URL.Path == "/api/v1/namespaces/"+w.ns+"/secrets" {
			response.Body = &pausable{response.Body, &still, forever}
		}
	})
	w.t.Cleanup(func() { close(forever) }) // before the proxy ends
	w.startProcessAs(api, "--watch-namespaces", w.ns+","+other.ns)
	token := w.token("journeys")
	w.ready("journeys")
	elsewhere := other.token("elsewhere", func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510009999" })
	other.ready("elsewhere")

	still.Store(true)
	for i := range 3 {
		asked := fmt.Sprint(i)
		for _, here := range []struct {
			*world
			token *v1alpha1.SFMCToken
		}{{w, token}, {other, elsewhere}} {
			old := here.held(here.token.Name)
			change(here.world, here.token, func(token *v1alpha1.SFMCToken) {
				token.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: asked}
			})
			here.Eventually(func() string { return here.held(here.token.Name) }).ShouldNot(Equal(old))
			here.Eventually(func() string { return here.get(here.token.Name).Status.LastHandledRefreshRequest }).Should(Equal(asked))
		}
	}
	w.Expect(w.sfmc.Count()).To(Equal(2+2*3), "no token was asked for twice")
}

// pausable is a stream from which nothing comes while it stands still.
type pausable struct {
	io.ReadCloser
	still   *atomic.Bool
	forever <-chan struct{}
}

func (p *pausable) Read(into []byte) (int, error) {
	n, err := p.ReadCloser.Read(into)
	if p.still.Load() {
		<-p.forever
	}
	return n, err
}

// namespacedOverlay is config/namespaced in a copy of config, with other namespaces, as its comments ask for.
func (w *world) namespacedOverlay(marketing, sales string) string {
	w.t.Helper()
	config := filepath.Join(w.t.TempDir(), "config")
	w.Expect(os.CopyFS(config, os.DirFS(harness.Path("config")))).To(Succeed())
	overlay := filepath.Join(config, "namespaced")
	names := strings.NewReplacer("marketing", marketing, "sales", sales)
	for _, name := range []string{"kustomization.yaml", "role_binding.yaml", "operator/kustomization.yaml"} { // as docs/namespaced.md says
		path := filepath.Join(overlay, name)
		text, err := os.ReadFile(path) //nolint:gosec // a copy of this repository's files
		w.Expect(err).NotTo(HaveOccurred())
		w.Expect(os.WriteFile(path, []byte(names.Replace(string(text))), 0o600)).To(Succeed()) //nolint:gosec // in this copy
	}
	return overlay
}

// reachesOnly asserts, by asking and by trying, that an account reaches Secrets and SFMCTokens in some namespaces, and
// neither all of the cluster's nor those of a third namespace.
func (w *world) reachesOnly(account *rest.Config, third string, served ...string) {
	w.t.Helper()
	mine, err := client.New(account, client.Options{Scheme: harness.Scheme})
	w.Expect(err).NotTo(HaveOccurred())
	may := func(verb, group, resource, namespace string) bool {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Namespace: namespace},
		}}
		w.Expect(mine.Create(w.ctx, review)).To(Succeed())
		return review.Status.Allowed
	}
	const everywhere = ""
	for _, verb := range []string{"get", "list", "watch", "create", "update"} {
		for _, outside := range []string{everywhere, third} {
			w.Expect(may(verb, "", "secrets", outside)).To(BeFalse(), "%s secrets in %q", verb, outside)
			w.Expect(may(verb, v1alpha1.GroupVersion.Group, "sfmctokens", outside)).To(BeFalse(), "%s sfmctokens in %q", verb, outside)
		}
		for _, namespace := range served {
			w.Expect(may(verb, "", "secrets", namespace)).To(BeTrue(), "%s secrets in %q", verb, namespace)
		}
	}
	for _, namespace := range served {
		w.Expect(may("delete", "", "secrets", namespace)).To(BeFalse())
		w.Expect(mine.List(w.ctx, &corev1.SecretList{}, client.InNamespace(namespace))).To(Succeed())
	}
	forbidden := MatchError(ContainSubstring("forbidden"))
	w.Expect(mine.List(w.ctx, &corev1.SecretList{})).To(forbidden)
	w.Expect(mine.List(w.ctx, &corev1.SecretList{}, client.InNamespace(third))).To(forbidden)
	w.Expect(mine.Get(w.ctx, client.ObjectKey{Namespace: third, Name: "sfmc-package"}, &corev1.Secret{})).To(forbidden)
	w.Expect(mine.List(w.ctx, &v1alpha1.SFMCTokenList{})).To(forbidden)
}
