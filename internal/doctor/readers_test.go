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

const target = "journeys-token"

// aToken has the target Secret journeys-token, with further keys of its own.
func aToken() *v1alpha1.SFMCToken {
	template := &v1alpha1.TargetTemplate{Data: map[string]v1alpha1.TemplateText{
		"authorization": "Bearer {{ .AccessToken }}",
		"until":         "{{ .ExpiresAt }}",
		"host":          `{{ trimPrefix "https://" .RESTInstanceURL }}`,
	}}
	return &v1alpha1.SFMCToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: "marketing", Name: "journeys", Generation: 1},
		Spec:       v1alpha1.SFMCTokenSpec{Target: &v1alpha1.Target{Name: target, Template: template}},
		Status:     v1alpha1.SFMCTokenStatus{ObservedGeneration: 1},
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

// withToken reads a token through the variable TOKEN.
func withToken(secret string) func(*corev1.Pod) { return withEnv(env("TOKEN", secret, "access_token")) }

func withEnvFrom(source corev1.EnvFromSource) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{source} }
}

// pods is a cluster that has these pods and nothing else.
func pods(all ...corev1.Pod) *doctor.Cluster { return &doctor.Cluster{Pods: all} }

func secretEnv(name string, optional *bool) corev1.EnvFromSource {
	return corev1.EnvFromSource{SecretRef: &corev1.SecretEnvSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Optional: optional,
	}}
}

func configMapEnv(name string) corev1.EnvFromSource {
	return corev1.EnvFromSource{ConfigMapRef: &corev1.ConfigMapEnvSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: name},
	}}
}

func mounted(source corev1.VolumeSource, mount corev1.VolumeMount) func(*corev1.Pod) {
	mount.Name, mount.MountPath = "sfmc", "/sfmc"
	return func(pod *corev1.Pod) {
		pod.Spec.Volumes = []corev1.Volume{{Name: "other"}, {Name: "sfmc", VolumeSource: source}}
		other := corev1.VolumeMount{Name: "other", MountPath: "/other", SubPath: "access_token"}
		pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{other, mount}
	}
}

func secretVolume(name string, items ...corev1.KeyToPath) corev1.VolumeSource {
	return corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name, Items: items}}
}

func optionalVolume(name string) corev1.VolumeSource {
	source := secretVolume(name)
	source.Secret.Optional = ptr.To(true)
	return source
}

func item(key, path string) corev1.KeyToPath { return corev1.KeyToPath{Key: key, Path: path} }

func projected(name string, items ...corev1.KeyToPath) corev1.VolumeSource {
	return corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}},
		{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: name}, Items: items}},
	}}}
}

func subPath(path string) corev1.VolumeMount { return corev1.VolumeMount{SubPath: path} }

// What is said of a reader.
const (
	nothing       = ""
	tokenVariable = "container app: environment variable TOKEN"
	subPathMount  = "container app: subPath mount at /sfmc"
)

var readers = map[string]struct {
	change func(*corev1.Pod)
	how    string
}{
	"env of the token": {
		withEnv(env("OTHER", "other", "access_token"), env("TOKEN", target, "access_token")),
		tokenVariable,
	},
	"env of the expiry": {
		withEnv(env("UNTIL", target, "expires_at")),
		"container app: environment variable UNTIL",
	},
	"env of a further key with the token": {
		withEnv(env("HEADER", target, "authorization")),
		"container app: environment variable HEADER",
	},
	"env of a further key with the expiry": {
		withEnv(env("UNTIL", target, "until")),
		"container app: environment variable UNTIL",
	},
	"env of a further key that stays": {withEnv(env("HOST", target, "host")), nothing},
	"env of an address, which stays":  {withEnv(env("URL", target, "rest_instance_url")), nothing},
	"env of another Secret":           {withToken("other"), nothing},
	"env of a literal":                {withEnv(corev1.EnvVar{Name: "TOKEN", Value: target}), nothing},
	"env of a field": {
		withEnv(corev1.EnvVar{Name: "NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{}}}),
		nothing,
	},
	"optional env":              {optional(withToken(target)), tokenVariable},
	"envFrom":                   {withEnvFrom(secretEnv(target, nil)), "container app: envFrom"},
	"optional envFrom":          {withEnvFrom(secretEnv(target, ptr.To(true))), "container app: envFrom"},
	"envFrom of another Secret": {withEnvFrom(secretEnv("other", nil)), nothing},
	"envFrom of a ConfigMap":    {withEnvFrom(configMapEnv(target)), nothing},
	"a volume":                  {mounted(secretVolume(target), subPath("")), nothing},
	"an optional volume":        {mounted(optionalVolume(target), subPath("")), nothing},
	"a subPath":                 {mounted(secretVolume(target), subPath("access_token")), subPathMount},
	"an optional volume with a subPath": {
		mounted(optionalVolume(target), subPath("access_token")),
		subPathMount,
	},
	"a subPath of a file that stays": {
		mounted(secretVolume(target), subPath("rest_instance_url")),
		nothing,
	},
	"a subPath of a further key": {
		mounted(secretVolume(target), subPath("authorization")),
		subPathMount,
	},
	"a subPath through the kubelet's link": {
		mounted(secretVolume(target), subPath("..data/access_token")),
		subPathMount,
	},
	"a subPath that is the kubelet's link": {
		mounted(secretVolume(target), subPath("..data")),
		subPathMount,
	},
	"a subPathExpr": {
		mounted(secretVolume(target), corev1.VolumeMount{SubPathExpr: "$(FILE)"}),
		subPathMount,
	},
	"a subPath of another Secret": {
		mounted(secretVolume("other"), subPath("access_token")),
		nothing,
	},
	"a subPath of an item": {
		mounted(secretVolume(target, item("access_token", "a/token")), subPath("a/token")),
		subPathMount,
	},
	"a subPath of a folder with an item": {
		mounted(secretVolume(target, item("access_token", "a/token")), subPath("a/")),
		subPathMount,
	},
	"a subPath beside an item": {
		mounted(secretVolume(target, item("access_token", "ab/token")), subPath("a")),
		nothing,
	},
	"a subPath of an item that stays": {
		mounted(secretVolume(target, item("account_id", "access_token")), subPath("access_token")),
		nothing,
	},
	"a projected volume": {mounted(projected(target), subPath("")), nothing},
	"a subPath of a projected volume": {
		mounted(projected(target), subPath("access_token")),
		subPathMount,
	},
	"a subPath of another source": {mounted(projected(target), subPath("settings.yaml")), nothing},
	"a subPath of a projected volume's item": {
		mounted(projected(target, item("access_token", "token")), subPath("token")),
		subPathMount,
	},
	"a subPath of another projected Secret": {
		mounted(projected("other"), subPath("access_token")),
		nothing,
	},
	"an init container": {moved(intoInit(nil)), "init container app: environment variable TOKEN"},
	"a sidecar container": {
		moved(intoInit(ptr.To(corev1.ContainerRestartPolicyAlways))),
		"sidecar container app: environment variable TOKEN",
	},
	"an ephemeral container": {
		moved(intoEphemeral),
		"ephemeral container app: environment variable TOKEN",
	},
	"a pod that has succeeded":               {over(corev1.PodSucceeded), nothing},
	"a pod that has failed":                  {over(corev1.PodFailed), nothing},
	"a pod that is yet to start":             {over(corev1.PodPending), tokenVariable},
	"a pod that is being deleted":            {leaving, nothing},
	"a pod of another namespace":             {abroad, nothing},
	"a pod that has nothing to do with it":   {func(*corev1.Pod) {}, nothing},
	"a Secret that has the SFMCToken's name": {withToken("journeys"), nothing},
	"an image pull secret of the same name": {
		func(pod *corev1.Pod) { pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: target}} },
		nothing,
	},
	"a volume that no container mounts": {
		func(pod *corev1.Pod) { pod.Spec.Volumes = []corev1.Volume{{VolumeSource: secretVolume(target)}} },
		nothing,
	},
	"a subPath of what isn't in the Secret": {
		mounted(secretVolume(target), subPath("no_such_key")),
		nothing,
	},
	"a subPath that is the volume as a whole": {
		mounted(secretVolume(target), subPath(".")),
		nothing,
	},
}

func TestReadersThatMissEveryRefreshAreNamed(t *testing.T) {
	for name, row := range readers {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			found := doctor.StaleReaders(aToken(), pods(aPod("consumer", row.change)))
			if row.how == nothing {
				g.Expect(found).To(BeEmpty())
				return
			}
			g.Expect(found).To(HaveLen(1))
			g.Expect(found[0].Container + ": " + found[0].How).To(Equal(row.how))
			g.Expect(found[0].Names).To(Equal([]string{"consumer"}))
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
		withToken(target)(pod)
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
	common := corev1.EphemeralContainerCommon(pod.Spec.Containers[0])
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: common}}
}

func over(phase corev1.PodPhase) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		withToken(target)(pod)
		pod.Status.Phase = phase
	}
}

func leaving(pod *corev1.Pod) {
	withToken(target)(pod)
	pod.DeletionTimestamp = &metav1.Time{Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
}

func abroad(pod *corev1.Pod) {
	withToken(target)(pod)
	pod.Namespace = "sales"
}

func TestPodsOfOneControllerAreNamedOnce(t *testing.T) {
	g := NewWithT(t)
	owned := func(kind, name string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: ptr.To(true)}}
			withToken(target)(pod)
		}
	}
	const how = ", container app, reads Secret journeys-token once, when it starts: environment variable TOKEN"
	var said []string
	for _, reader := range doctor.StaleReaders(aToken(), pods(
		aPod("a-1", owned("ReplicaSet", "a")),
		aPod("a-2", owned("ReplicaSet", "a")),
		aPod("a-3", owned("ReplicaSet", "a")),
		aPod("b-1", owned("Job", "b")),
		aPod("c", withToken(target)),
		aPod("d", withToken(target)),
	)) {
		said = append(said, reader.String())
		g.Expect(reader.Advice()).To(ContainSubstring("without subPath"))
	}
	g.Expect(said).To(Equal([]string{
		"Pod a-1 and 2 more of ReplicaSet a" + how,
		"Pod b-1 of Job b" + how,
		"Pod c" + how,
		"Pod d" + how,
	}))
}

func TestTheSecretOfAFormerNameCountsWhileItHoldsTheToken(t *testing.T) {
	g := NewWithT(t)
	token := aToken()
	token.Status.TargetSecretName = "former"
	found := doctor.StaleReaders(token, pods(aPod("a", withToken("former")), aPod("b", withToken(target))))
	g.Expect(found).To(HaveLen(2))
}

func TestASecretThatBelongsToSomebodyElseIsNoTarget(t *testing.T) {
	g := NewWithT(t)
	token := aToken()
	token.Status.Conditions = []metav1.Condition{{Type: "Stalled", Status: "True", Reason: "TargetConflict"}}
	g.Expect(doctor.StaleReaders(token, pods(aPod("a", withToken(target))))).To(BeEmpty())
}

func TestWithoutATargetTheSecretHasTheTokensName(t *testing.T) {
	g := NewWithT(t)
	token := aToken()
	token.Spec.Target = nil
	g.Expect(doctor.StaleReaders(token, pods(aPod("a", withToken("journeys"))))).To(HaveLen(1))
}
