// Package doctor tells people how their SFMCTokens are, and which pods make too little of them. It is given what a
// cluster has, and the time; it reaches for nothing.
package doctor

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// Reader is a container that gets a target Secret.
type Reader struct {
	// Secret is the target Secret.
	Secret string `json:"secret"`
	// Kind and Names of what has this container: one object, or the pods of one controller.
	Kind  string   `json:"kind"`
	Names []string `json:"names"`
	// Controller of pods whose template isn't known, for example "ReplicaSet journeys-6d5f9"; empty if they have none.
	Controller string `json:"controller,omitempty"`
	// Container is its kind and name, for example "init container render".
	Container string `json:"container"`
	// How the Secret gets into it, for example "environment variable SFMC_TOKEN".
	How string `json:"how"`
	// IsBrief is true if its pods end before the token does that they began with. That is worth a hint.
	IsBrief bool `json:"isHint"`
}

// Who returns what has the container, and which one it is.
func (r Reader) Who() string {
	who := r.Kind + " " + r.Names[0]
	switch more := len(r.Names) - 1; {
	case more > 0:
		who += fmt.Sprintf(" and %d more of %s", more, r.Controller)
	case r.Controller != "":
		who += " of " + r.Controller
	}
	return who + ", " + r.Container
}

func (r Reader) String() string {
	text := fmt.Sprintf("%s, reads Secret %s once, when it starts: %s", r.Who(), r.Secret, r.How)
	if r.IsBrief {
		return "Hint: " + text
	}
	return text
}

// Advice returns what to do about such a reader.
func (r Reader) Advice() string {
	text := "It misses every refresh, and gets 401 when the token that it began with is over. Mount"
	switch {
	case r.IsBrief:
		return "It ends before the token that it begins with, by activeDeadlineSeconds: nothing needs to be done."
	case strings.HasPrefix(r.Container, "init "):
		text = "What it makes of the token is good for 20 minutes at most. Let the containers that make the calls mount"
	case r.Kind == "Job" || r.Kind == "CronJob":
		text = "It gets 401 if it runs for longer than the token that it begins with lives. Limit it by " +
			"activeDeadlineSeconds to what spec.refreshBefore leaves for sure, or mount"
	}
	return text + " Secret " + r.Secret + " as a volume, without subPath, and read the file for each call."
}

// StaleReaders returns those containers that read the SFMCToken's target Secret once, when they start, and so miss
// every refresh: through env, envFrom or a subPath mount. Whoever reads only what is the same in every token, such as
// rest_instance_url, misses nothing.
func StaleReaders(token *v1alpha1.SFMCToken, cluster *Cluster) []Reader {
	keys := refreshedKeys(token.Spec.Target)
	return readersOf(token, cluster, func(c container, secret string, files map[string][]string) []string {
		return slices.Concat(throughEnv(c, secret, keys), throughSubPath(c, files))
	})
}

// FreshReaders returns those containers that mount the SFMCToken's target Secret as a volume, and so find each new
// token there.
func FreshReaders(token *v1alpha1.SFMCToken, cluster *Cluster) []Reader {
	return readersOf(token, cluster, func(c container, _ string, files map[string][]string) []string {
		return throughVolume(c, files)
	})
}

// readersOf returns the containers that get the SFMCToken's target Secret in those ways that a function returns. That
// is given the files which are made of the Secret and change, by volume.
func readersOf(
	token *v1alpha1.SFMCToken, cluster *Cluster,
	ways func(c container, secret string, files map[string][]string) []string,
) []Reader {
	keys := refreshedKeys(token.Spec.Target)
	var found []Reader
	for _, w := range cluster.workloads() {
		if w.namespace != token.Namespace {
			continue
		}
		// A token has at least so much left when a pod begins with it.
		reader := Reader{Kind: w.kind, Names: []string{w.name}, Controller: w.controller,
			IsBrief: w.endsWithin > 0 && w.endsWithin <= token.RefreshBefore()}
		for _, reader.Secret = range targetSecrets(token) {
			files := refreshedFiles(w.spec.Volumes, reader.Secret, keys)
			for _, c := range containers(w.spec) {
				reader.Container = c.kind + " " + c.Name
				for _, reader.How = range ways(c, reader.Secret, files) {
					found = add(found, reader)
				}
			}
		}
	}
	return found
}

// add returns the readers with one more, the pods of one controller together: they are mended in one place.
func add(readers []Reader, r Reader) []Reader {
	if r.Controller != "" {
		same := func(other Reader) bool {
			return other.Secret == r.Secret && other.Controller == r.Controller &&
				other.Container == r.Container && other.How == r.How
		}
		if i := slices.IndexFunc(readers, same); i >= 0 {
			readers[i].Names = append(readers[i].Names, r.Names...)
			return readers
		}
	}
	return append(readers, r)
}

// Reloader's annotations on a consumer, and the one on a Secret that it leaves alone.
const (
	reloaderGroup  = "reloader.stakater.com/"
	reloaderIgnore = reloaderGroup + "ignore"
)

const reloads = "Reloader restarts it at each refresh of Secret %s. Set the annotation %s: \"true\" in " +
	"spec.target.template.metadata.annotations, mount the Secret as a volume, and read the file for each call."

// Restarted returns what Stakater's Reloader restarts at each refresh of the SFMCToken's target Secret, every few
// minutes, since an annotation on it says so.
func Restarted(token *v1alpha1.SFMCToken, cluster *Cluster) []Problem {
	if token.TargetTemplate().Metadata.Annotations[reloaderIgnore] == "true" {
		return nil
	}
	var found []Problem
	for _, w := range cluster.workloads() {
		if w.namespace != token.Namespace {
			continue
		}
		for _, secret := range targetSecrets(token) {
			if w.isReloadedFor(secret) {
				found = append(found, Problem{w.kind + " " + w.name, fmt.Sprintf(reloads, secret, reloaderIgnore)})
			}
		}
	}
	return found
}

// isReloadedFor reports whether Reloader's annotations name a Secret, or whatever is used.
func (w *workload) isReloadedFor(secret string) bool {
	for name := range strings.SplitSeq(w.annotations["secret."+reloaderGroup+"reload"], ",") {
		if strings.TrimSpace(name) == secret {
			return true
		}
	}
	isAuto := w.annotations[reloaderGroup+"auto"] == "true" || w.annotations["secret."+reloaderGroup+"auto"] == "true"
	return isAuto && reads(w.spec, secret)
}

// reads reports whether any container gets a Secret, in whatever way.
func reads(spec *corev1.PodSpec, secret string) bool {
	for _, c := range containers(spec) {
		for _, from := range c.EnvFrom {
			if from.SecretRef != nil && from.SecretRef.Name == secret {
				return true
			}
		}
		for _, env := range c.Env {
			if from := env.ValueFrom; from != nil && from.SecretKeyRef != nil && from.SecretKeyRef.Name == secret {
				return true
			}
		}
	}
	for _, volume := range spec.Volumes {
		if volume.Secret != nil && volume.Secret.SecretName == secret {
			return true
		}
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			if source.Secret != nil && source.Secret.Name == secret {
				return true
			}
		}
	}
	return false
}

// isOver reports whether a pod makes no calls any more, or soon won't.
func isOver(pod *corev1.Pod) bool {
	phase := pod.Status.Phase
	return !pod.DeletionTimestamp.IsZero() || phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

// targetSecrets returns the Secrets that hold the SFMCToken's token, or will: a former one too, while it is there.
func targetSecrets(token *v1alpha1.SFMCToken) []string {
	names := []string{token.Status.TargetSecretName}
	if c := hindrance(token); c == nil || c.Reason != string(v1alpha1.ReasonTargetConflict) { // else somebody else's
		names = append(names, token.TargetSecretName())
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" })
}

// refreshedKeys returns the keys of the target Secret whose values change with each token.
func refreshedKeys(target *v1alpha1.Target) []string {
	var keys, fields []string
	for _, key := range token.Keys {
		if key.Changes {
			keys, fields = append(keys, key.Name), append(fields, key.Field)
		}
	}
	if target != nil && target.Template != nil {
		for key, text := range target.Template.Data {
			if slices.ContainsFunc(fields, func(field string) bool { return strings.Contains(string(text), field) }) {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	return keys
}

type container struct {
	corev1.Container
	kind string
}

func containers(spec *corev1.PodSpec) []container {
	var all []container
	for _, c := range spec.InitContainers {
		kind := "init container"
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			kind = "sidecar container"
		}
		all = append(all, container{c, kind})
	}
	for _, c := range spec.Containers {
		all = append(all, container{c, "container"})
	}
	for _, c := range spec.EphemeralContainers {
		all = append(all, container{corev1.Container(c.EphemeralContainerCommon), "ephemeral container"})
	}
	return all
}

// throughEnv returns which environment variables are made of these keys of a Secret.
func throughEnv(c container, secret string, keys []string) []string {
	var how []string
	for _, from := range c.EnvFrom {
		if from.SecretRef != nil && from.SecretRef.Name == secret {
			how = append(how, "envFrom")
		}
	}
	for _, env := range c.Env {
		if env.ValueFrom == nil || env.ValueFrom.SecretKeyRef == nil {
			continue
		}
		if ref := env.ValueFrom.SecretKeyRef; ref.Name == secret && slices.Contains(keys, ref.Key) {
			how = append(how, "environment variable "+env.Name)
		}
	}
	return how
}

// refreshedFiles returns the files, of each volume, that are made of these keys of a Secret.
func refreshedFiles(volumes []corev1.Volume, secret string, keys []string) map[string][]string {
	files := map[string][]string{}
	for _, volume := range volumes {
		if source := volume.Secret; source != nil && source.SecretName == secret {
			files[volume.Name] = append(files[volume.Name], filesOf(source.Items, keys)...)
		}
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			if source.Secret != nil && source.Secret.Name == secret {
				files[volume.Name] = append(files[volume.Name], filesOf(source.Secret.Items, keys)...)
			}
		}
	}
	return files
}

func filesOf(items []corev1.KeyToPath, keys []string) []string {
	if len(items) == 0 {
		return keys // each key is a file of its name
	}
	var files []string
	for _, item := range items {
		if slices.Contains(keys, item.Key) {
			files = append(files, path.Clean(item.Path))
		}
	}
	return files
}

// throughVolume returns which mounts have such files, and follow their changes.
func throughVolume(c container, files map[string][]string) []string {
	var how []string
	for _, mount := range c.VolumeMounts {
		if len(files[mount.Name]) > 0 && mount.SubPath == "" && mount.SubPathExpr == "" {
			how = append(how, "volume at "+mount.MountPath)
		}
	}
	return how
}

// throughSubPath returns which mounts have one of these files, or a folder with one, as their subPath.
func throughSubPath(c container, files map[string][]string) []string {
	var how []string
	for _, mount := range c.VolumeMounts {
		if slices.ContainsFunc(files[mount.Name], func(file string) bool { return isFixed(mount, file) }) {
			how = append(how, "subPath mount at "+mount.MountPath)
		}
	}
	return how
}

// isFixed reports whether a mount keeps a file as it was when the container started.
func isFixed(mount corev1.VolumeMount, file string) bool {
	if mount.SubPathExpr != "" {
		return true // it takes a running container to know what it comes to
	}
	if mount.SubPath == "" {
		return false
	}
	// The kubelet changes the link ..data for another folder with each refresh.
	at := strings.TrimPrefix(path.Clean(mount.SubPath), "..data/")
	return at == file || at == "..data" || strings.HasPrefix(file, at+"/")
}
