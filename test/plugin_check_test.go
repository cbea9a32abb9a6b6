package test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// deployment is an operator's in the test's namespace, as config/manager has it. No node runs its pod.
func (w *world) deployment(changes ...func(*appsv1.Deployment)) *appsv1.Deployment {
	w.t.Helper()
	labels := map[string]string{"app.kubernetes.io/name": "sfmctoken-operator"}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "sfmctoken-operator"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
				TerminationGracePeriodSeconds: ptr.To[int64](0),
				Containers: []corev1.Container{{
					Name: "manager", Image: "registry.example.com/sfmctoken-operator:0.1.0", Args: []string{"--leader-elect", "--metrics-bind-address=:8443"},
				}},
			}},
		},
	}
	for _, change := range changes {
		change(deployment)
	}
	w.create(deployment)
	return deployment
}

// runPods says of the operator's pods that they run, as their node would.
func (w *world) runPods() {
	w.t.Helper()
	w.Eventually(func(g Gomega) {
		var pods corev1.PodList
		g.Expect(admin.List(w.ctx, &pods, client.InNamespace(w.ns), client.MatchingLabels{"app.kubernetes.io/name": "sfmctoken-operator"})).To(Succeed())
		g.Expect(pods.Items).NotTo(BeEmpty())
		for i := range pods.Items {
			pods.Items[i].Status.Phase = corev1.PodRunning
			pods.Items[i].Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
			g.Expect(admin.Status().Update(w.ctx, &pods.Items[i])).To(Succeed())
		}
	}).Should(Succeed())
	w.Eventually(func(g Gomega) {
		var deployment appsv1.Deployment
		g.Expect(admin.Get(w.ctx, client.ObjectKey{Namespace: w.ns, Name: "sfmctoken-operator"}, &deployment)).To(Succeed())
		g.Expect(deployment.Status.AvailableReplicas).To(BeEquivalentTo(1))
	}).Should(Succeed())
}

func (w *world) lease() *coordinationv1.Lease {
	w.t.Helper()
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "sfmctoken-operator"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: ptr.To("sfmctoken-operator-abc_8f7e"), LeaseDurationSeconds: ptr.To[int32](15), RenewTime: ptr.To(metav1.NowMicro()),
		},
	}
	w.create(lease)
	return lease
}

func TestThePluginChecksTheOperator(t *testing.T) {
	w := newWorld(t)
	w.deployment()
	lease := w.lease()
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "sfmctoken-operator-metrics"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app.kubernetes.io/name": "sfmctoken-operator"},
			Ports: []corev1.ServicePort{{Port: 8443, TargetPort: intstr.FromString("metrics")}}},
	}
	w.create(service)
	readsLease := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{"sfmctoken-operator"}}
	person := w.personWho(rights{w.ns: {may("list", "apps", "deployments"), may("list", "", "services"), readsLease, may("list", own, "sfmctokens")}})
	check := func(kubeconfig string) said { return w.pluginAs(kubeconfig, "check", "--operator-namespace", w.ns) }

	var said said
	w.Eventually(func() string { said = check(person); return said.out }).ShouldNot(MatchRegexp(`(?m)^unknown`), "the rights have arrived")
	w.Expect(said.code).To(Equal(1))
	w.Expect(said.out).To(MatchRegexp(`(?m)^problem +operator +Deployment %s/sfmctoken-operator: 0 of 1 replicas available$`, w.ns))
	w.runPods()
	said = check(person)
	w.Expect(said.code).To(Equal(0), "all is well")
	for _, line := range []string{
		`ok +kinds +sfmctoken.dev/v1alpha1 serves SFMCTokens and SFMCAccessGrants`,
		`ok +operator +Deployment ` + w.ns + `/sfmctoken-operator: 1 of 1 replicas available`,
		`ok +version +plugin .*, operator registry.example.com/sfmctoken-operator:0.1.0.*`,
		`ok +metrics +Service ` + w.ns + `/sfmctoken-operator-metrics`,
		`ok +leader +Lease ` + w.ns + `/sfmctoken-operator, by sfmctoken-operator-abc, renewed .* ago`,
		`ok +list +you may use it in namespace ` + w.ns,
		`denied +list -w +in namespace ` + w.ns + ` you may not watch sfmctokens.sfmctoken.dev`,
		`denied +whoami +.*get secrets`,
	} {
		w.Expect(said.out).To(MatchRegexp(`(?m)^` + line + `$`))
	}

	change(w, lease, func(lease *coordinationv1.Lease) {
		lease.Spec.RenewTime = ptr.To(metav1.NewMicroTime(time.Now().Add(-time.Hour)))
	})
	w.Expect(admin.Delete(w.ctx, service)).To(Succeed())
	said = check(person)
	w.Expect(said.code).To(Equal(1))
	w.Expect(said.out).To(MatchRegexp(`(?m)^problem +leader +.*renewed 60m ago: it has ended`))
	w.Expect(said.out).To(MatchRegexp(`(?m)^problem +metrics +no Service`))
	change(w, lease, func(lease *coordinationv1.Lease) { lease.Spec.HolderIdentity = nil })
	w.Expect(check(person).out).To(MatchRegexp(`(?m)^problem +leader +.*is held by nobody$`))
	w.Expect(admin.Delete(w.ctx, lease)).To(Succeed())
	w.Expect(check(person).out).To(MatchRegexp(`(?m)^problem +leader +no Lease`))

	blind := check(w.personWho(nil))
	w.Expect(blind.code).To(Equal(2), "not to see is not to find it well")
	w.Expect(blind.out).To(MatchRegexp(`(?m)^ok +kinds`))
	w.Expect(blind.out).To(MatchRegexp(`(?m)^unknown +operator +list Deployments in namespace`))
	w.Expect(blind.out).To(MatchRegexp(`(?m)^unknown +leader`))
}

func TestThePluginShowsBothVersions(t *testing.T) {
	w := newWorld(t)
	person := w.personWho(rights{w.ns: {may("list", "apps", "deployments")}})
	versions := func(kubeconfig string, flags ...string) said {
		return w.pluginAs(kubeconfig, append([]string{"version", "--operator-namespace", w.ns}, flags...)...)
	}
	var none said
	w.Eventually(func() int { none = versions(person); return none.code }).Should(Equal(1), "there is no operator")
	w.Expect(none.out).To(ContainSubstring("Operator  no Deployment in namespace " + w.ns))
	w.deployment()
	both := versions(person)
	w.Expect(both.code).To(Equal(0))
	w.Expect(both.out).To(MatchRegexp(`^Plugin    .+\nOperator  registry.example.com/sfmctoken-operator:0.1.0 \(Deployment %s/sfmctoken-operator\)\n$`, w.ns))
	nobody := w.personWho(nil)
	w.Expect(versions(nobody).code).To(Equal(2))
	w.Expect(versions(nobody, "--client").code).To(Equal(0))
}
