package doctor_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

// aToken has the target Secret journeys-token, with further keys of its own.
func aToken() *v1alpha1.SFMCToken {
	return &v1alpha1.SFMCToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: "marketing", Name: "journeys", Generation: 1},
		Spec: v1alpha1.SFMCTokenSpec{Target: &v1alpha1.Target{Name: "journeys-token", Template: &v1alpha1.TargetTemplate{Data: map[string]v1alpha1.TemplateText{
			"authorization": "Bearer {{ .AccessToken }}",
			"until":         "{{ .ExpiresAt }}",
			"host":          `{{ trimPrefix "https://" .RESTInstanceURL }}`,
		}}}},
		Status: v1alpha1.SFMCTokenStatus{ObservedGeneration: 1},
	}
}

// aPod has one container, changed by the functions.
func aPod(name string, changes ...func(*corev1.Pod)) corev1.Pod {
	pod := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "marketing", Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, change := range changes {
		change(&pod)
	}
	return pod
}

func env(name, secret, key string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
		LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Key: key,
	}}}
}

func withEnv(vars ...corev1.EnvVar) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Spec.Containers[0].Env = vars }
}

func withEnvFrom(source corev1.EnvFromSource) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{source} }
}

func secretEnv(name string, optional *bool) corev1.EnvFromSource {
	return corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Optional: optional}}
}

func mounted(source corev1.VolumeSource, mount corev1.VolumeMount) func(*corev1.Pod) {
	mount.Name, mount.MountPath = "sfmc", "/sfmc"
	return func(pod *corev1.Pod) {
		pod.Spec.Volumes = []corev1.Volume{{Name: "other"}, {Name: "sfmc", VolumeSource: source}}
		pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "other", MountPath: "/other", SubPath: "access_token"}, mount}
	}
}

func secretVolume(name string, items ...corev1.KeyToPath) corev1.VolumeSource {
	return corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name, Items: items}}
}

func projected(name string, items ...corev1.KeyToPath) corev1.VolumeSource {
	return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}},
		{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Items: items}},
	}}}
}

func subPath(path string) corev1.VolumeMount { return corev1.VolumeMount{SubPath: path} }

func TestReadersThatMissEveryRefreshAreNamed(t *testing.T) {
	const target = "journeys-token"
	for name, row := range map[string]struct {
		change func(*corev1.Pod)
		how    string // none if empty
	}{
		"env of the token":                        {withEnv(env("OTHER", "other", "access_token"), env("TOKEN", target, "access_token")), "container app: environment variable TOKEN"},
		"env of the expiry":                       {withEnv(env("UNTIL", target, "expires_at")), "container app: environment variable UNTIL"},
		"env of a further key with the token":     {withEnv(env("HEADER", target, "authorization")), "container app: environment variable HEADER"},
		"env of a further key with the expiry":    {withEnv(env("UNTIL", target, "until")), "container app: environment variable UNTIL"},
		"env of a further key that stays":         {withEnv(env("HOST", target, "host")), ""},
		"env of an address, which stays":          {withEnv(env("URL", target, "rest_instance_url")), ""},
		"env of another Secret":                   {withEnv(env("TOKEN", "other", "access_token")), ""},
		"env of a literal":                        {withEnv(corev1.EnvVar{Name: "TOKEN", Value: target}), ""},
		"env of a field":                          {withEnv(corev1.EnvVar{Name: "NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{}}}), ""},
		"optional env":                            {optional(withEnv(env("TOKEN", target, "access_token"))), "container app: environment variable TOKEN"},
		"envFrom":                                 {withEnvFrom(secretEnv(target, nil)), "container app: envFrom"},
		"optional envFrom":                        {withEnvFrom(secretEnv(target, ptr.To(true))), "container app: envFrom"},
		"envFrom of another Secret":               {withEnvFrom(secretEnv("other", nil)), ""},
		"envFrom of a ConfigMap":                  {withEnvFrom(corev1.EnvFromSource{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: target}}}), ""},
		"a volume":                                {mounted(secretVolume(target), subPath("")), ""},
		"an optional volume":                      {mounted(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: target, Optional: ptr.To(true)}}, subPath("")), ""},
		"a subPath":                               {mounted(secretVolume(target), subPath("access_token")), "container app: subPath mount at /sfmc"},
		"an optional volume with a subPath":       {mounted(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: target, Optional: ptr.To(true)}}, subPath("access_token")), "container app: subPath mount at /sfmc"},
		"a subPath of a file that stays":          {mounted(secretVolume(target), subPath("rest_instance_url")), ""},
		"a subPath of a further key":              {mounted(secretVolume(target), subPath("authorization")), "container app: subPath mount at /sfmc"},
		"a subPath through the kubelet's link":    {mounted(secretVolume(target), subPath("..data/access_token")), "container app: subPath mount at /sfmc"},
		"a subPath that is the kubelet's link":    {mounted(secretVolume(target), subPath("..data")), "container app: subPath mount at /sfmc"},
		"a subPathExpr":                           {mounted(secretVolume(target), corev1.VolumeMount{SubPathExpr: "$(FILE)"}), "container app: subPath mount at /sfmc"},
		"a subPath of another Secret":             {mounted(secretVolume("other"), subPath("access_token")), ""},
		"a subPath of an item":                    {mounted(secretVolume(target, corev1.KeyToPath{Key: "access_token", Path: "a/token"}), subPath("a/token")), "container app: subPath mount at /sfmc"},
		"a subPath of a folder with an item":      {mounted(secretVolume(target, corev1.KeyToPath{Key: "access_token", Path: "a/token"}), subPath("a/")), "container app: subPath mount at /sfmc"},
		"a subPath beside an item":                {mounted(secretVolume(target, corev1.KeyToPath{Key: "access_token", Path: "ab/token"}), subPath("a")), ""},
		"a subPath of an item that stays":         {mounted(secretVolume(target, corev1.KeyToPath{Key: "account_id", Path: "access_token"}), subPath("access_token")), ""},
		"a projected volume":                      {mounted(projected(target), subPath("")), ""},
		"a subPath of a projected volume":         {mounted(projected(target), subPath("access_token")), "container app: subPath mount at /sfmc"},
		"a subPath of another source":             {mounted(projected(target), subPath("settings.yaml")), ""},
		"a subPath of a projected volume's item":  {mounted(projected(target, corev1.KeyToPath{Key: "access_token", Path: "token"}), subPath("token")), "container app: subPath mount at /sfmc"},
		"a subPath of another projected Secret":   {mounted(projected("other"), subPath("access_token")), ""},
		"an init container":                       {moved(intoInit(nil)), "init container app: environment variable TOKEN"},
		"a sidecar container":                     {moved(intoInit(ptr.To(corev1.ContainerRestartPolicyAlways))), "sidecar container app: environment variable TOKEN"},
		"an ephemeral container":                  {moved(intoEphemeral), "ephemeral container app: environment variable TOKEN"},
		"a pod that has succeeded":                {over(corev1.PodSucceeded), ""},
		"a pod that has failed":                   {over(corev1.PodFailed), ""},
		"a pod that is yet to start":              {over(corev1.PodPending), "container app: environment variable TOKEN"},
		"a pod that is being deleted":             {leaving, ""},
		"a pod of another namespace":              {abroad, ""},
		"a pod that has nothing to do with it":    {func(*corev1.Pod) {}, ""},
		"a Secret that has the SFMCToken's name":  {withEnv(env("TOKEN", "journeys", "access_token")), ""},
		"an image pull secret of the same name":   {func(pod *corev1.Pod) { pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: target}} }, ""},
		"a volume that no container mounts":       {func(pod *corev1.Pod) { pod.Spec.Volumes = []corev1.Volume{{VolumeSource: secretVolume(target)}} }, ""},
		"a subPath of what isn't in the Secret":   {mounted(secretVolume(target), subPath("no_such_key")), ""},
		"a subPath that is the volume as a whole": {mounted(secretVolume(target), subPath(".")), ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			found := doctor.StaleReaders(aToken(), []corev1.Pod{aPod("consumer", row.change)})
			if row.how == "" {
				g.Expect(found).To(BeEmpty())
				return
			}
			g.Expect(found).To(HaveLen(1))
			g.Expect(found[0].Container + ": " + found[0].How).To(Equal(row.how))
			g.Expect(found[0].Pods).To(Equal([]string{"consumer"}))
			g.Expect(found[0].Secret).To(Equal(target))
		})
	}
}

func optional(change func(*corev1.Pod)) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		change(pod)
		pod.Spec.Containers[0].Env[0].ValueFrom.SecretKeyRef.Optional = ptr.To(true)
	}
}

func moved(to func(*corev1.Pod)) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		withEnv(env("TOKEN", "journeys-token", "access_token"))(pod)
		to(pod)
		pod.Spec.Containers = nil
	}
}

func intoInit(policy *corev1.ContainerRestartPolicy) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Spec.InitContainers = pod.Spec.Containers
		pod.Spec.InitContainers[0].RestartPolicy = policy
	}
}

func intoEphemeral(pod *corev1.Pod) {
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon(pod.Spec.Containers[0])}}
}

func over(phase corev1.PodPhase) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		withEnv(env("TOKEN", "journeys-token", "access_token"))(pod)
		pod.Status.Phase = phase
	}
}

func leaving(pod *corev1.Pod) {
	withEnv(env("TOKEN", "journeys-token", "access_token"))(pod)
	pod.DeletionTimestamp = &metav1.Time{Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
}

func abroad(pod *corev1.Pod) {
	withEnv(env("TOKEN", "journeys-token", "access_token"))(pod)
	pod.Namespace = "sales"
}

func TestPodsOfOneControllerAreNamedOnce(t *testing.T) {
	g := NewWithT(t)
	owned := func(kind, name string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: ptr.To(true)}}
			withEnv(env("TOKEN", "journeys-token", "access_token"))(pod)
		}
	}
	var said []string
	for _, reader := range doctor.StaleReaders(aToken(), []corev1.Pod{
		aPod("a-1", owned("ReplicaSet", "a")), aPod("a-2", owned("ReplicaSet", "a")), aPod("a-3", owned("ReplicaSet", "a")),
		aPod("b-1", owned("Job", "b")),
		aPod("c", withEnv(env("TOKEN", "journeys-token", "access_token"))),
		aPod("d", withEnv(env("TOKEN", "journeys-token", "access_token"))),
	}) {
		said = append(said, reader.String())
		g.Expect(reader.Advice()).To(ContainSubstring("without subPath"))
	}
	g.Expect(said).To(Equal([]string{
		"Pod a-1 and 2 more of ReplicaSet a, container app, reads Secret journeys-token once, when it starts: environment variable TOKEN",
		"Pod b-1 of Job b, container app, reads Secret journeys-token once, when it starts: environment variable TOKEN",
		"Pod c, container app, reads Secret journeys-token once, when it starts: environment variable TOKEN",
		"Pod d, container app, reads Secret journeys-token once, when it starts: environment variable TOKEN",
	}))
}

func TestTheSecretOfAFormerNameCountsWhileItHoldsTheToken(t *testing.T) {
	g := NewWithT(t)
	token := aToken()
	token.Status.TargetSecretName = "former"
	found := doctor.StaleReaders(token, []corev1.Pod{aPod("a", withEnv(env("TOKEN", "former", "access_token"))), aPod("b", withEnv(env("TOKEN", "journeys-token", "access_token")))})
	g.Expect(found).To(HaveLen(2))
}

func TestASecretThatBelongsToSomebodyElseIsNoTarget(t *testing.T) {
	g := NewWithT(t)
	token := aToken()
	token.Status.Conditions = []metav1.Condition{{Type: "Stalled", Status: "True", Reason: "TargetConflict"}}
	g.Expect(doctor.StaleReaders(token, []corev1.Pod{aPod("a", withEnv(env("TOKEN", "journeys-token", "access_token")))})).To(BeEmpty())
}

func TestWithoutATargetTheSecretHasTheTokensName(t *testing.T) {
	g := NewWithT(t)
	token := aToken()
	token.Spec.Target = nil
	g.Expect(doctor.StaleReaders(token, []corev1.Pod{aPod("a", withEnv(env("TOKEN", "journeys", "access_token")))})).To(HaveLen(1))
}
