package test

import (
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// rights are rules by namespace.
type rights map[string][]rbacv1.PolicyRule

func may(verb, group string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{verb}, APIGroups: []string{group}, Resources: resources}
}

// listsReaders are the rights to see what reads Secrets.
var listsReaders = []rbacv1.PolicyRule{
	may("list", "apps", "deployments", "statefulsets", "daemonsets"), may("list", "batch", "jobs", "cronjobs"), may("list", "", "pods"),
}

// personWho makes a kubeconfig of somebody who has these rights and nothing else.
func (w *world) personWho(has rights) string {
	w.t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, GenerateName: "person-"}}
	w.create(account)
	for namespace, rules := range has {
		role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "person-"}, Rules: rules}
		w.create(role)
		w.create(&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "person-"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: w.ns, Name: account.Name}},
		})
	}
	config, err := cluster.ServiceAccountConfig(w.ctx, w.ns, account.Name)
	w.Expect(err).NotTo(HaveOccurred())
	return w.kubeconfig(config)
}

// pluginAs runs the plugin in the test's namespace as that person.
func (w *world) pluginAs(kubeconfig string, args ...string) said {
	w.t.Helper()
	return w.kubectlSFMCToken(append(args, "-n", w.ns, "--kubeconfig", kubeconfig)...)
}

const own = "sfmctoken.dev"
