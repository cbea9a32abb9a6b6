package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

// fieldOwner is the operator's name in the managedFields of what it writes.
const fieldOwner = target.ManagedByValue

// accuse returns a message that says who keeps changing what of a target Secret, which was right in that version. It
// reports whether Kubernetes could be asked. That is done once: the caches leave managedFields out.
func (r *Reconciler) accuse(ctx context.Context, current, desired *corev1.Secret, right string) (string, bool) {
	const format = "Secret %s is changed again and again: %s; it is put right ever more slowly, up to once in 60 s"
	if current == nil {
		return fmt.Sprintf(format, desired.Name, "it is deleted, Kubernetes' audit log can tell by whom"), true
	}
	changed := differences(current, desired)
	who := "an admission webhook or policy that changes what this operator writes"
	isKnown := current.ResourceVersion == right
	if !isKnown {
		found := credentials.MetadataOf("Secret")
		err := r.objects.live.Get(ctx, client.ObjectKeyFromObject(desired), found)
		isKnown = err == nil
		if who = "somebody whom only Kubernetes' audit log can name"; isKnown {
			switch manager := managerOf(found.ManagedFields, changed); manager {
			case "": // it is not recorded who takes a part away
			case fieldOwner:
				who = "another sfmctoken-operator, or an admission webhook or policy"
			default:
				who = fmt.Sprintf("the field manager %q", manager)
			}
		}
	}
	return fmt.Sprintf(format, desired.Name, nameAll(changed)+" by "+who), isKnown
}

// difference is a part of a target Secret that isn't as it should be.
type difference struct {
	name string
	path []string // in managedFields
}

// differences returns those of two Secrets, without any value.
func differences(current, desired *corev1.Secret) []difference {
	changed := slices.Concat(
		differing("data key", current.Data, desired.Data, "f:data"),
		differing("label", current.Labels, desired.Labels, "f:metadata", "f:labels"),
		differing("annotation", current.Annotations, desired.Annotations, "f:metadata", "f:annotations"))
	if !equality.Semantic.DeepEqual(current.OwnerReferences, desired.OwnerReferences) {
		changed = append(changed, difference{"owner references", []string{"f:metadata", "f:ownerReferences"}})
	}
	return changed
}

func differing[V any](kind string, current, desired map[string]V, path ...string) []difference {
	all := maps.Clone(current)
	if all == nil {
		all = map[string]V{}
	}
	maps.Copy(all, desired)
	var changed []difference
	for _, key := range slices.Sorted(maps.Keys(all)) {
		is, isThere := current[key]
		should, isWanted := desired[key]
		if isThere != isWanted || !equality.Semantic.DeepEqual(is, should) {
			changed = append(changed, difference{fmt.Sprintf("%s %q", kind, key), append(slices.Clone(path), "f:"+key)})
		}
	}
	return changed
}

// nameAll names the first few of some differences.
func nameAll(changed []difference) string {
	const most = 3
	var names []string
	for _, difference := range changed[:min(most, len(changed))] {
		names = append(names, difference.name)
	}
	if more := len(changed) - most; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// managerOf returns who wrote one of the parts last, somebody else than an operator if possible; empty if nobody did.
func managerOf(managed []metav1.ManagedFieldsEntry, changed []difference) string {
	manager, last := "", time.Time{}
	for _, entry := range managed {
		at, fields := ptr.Deref(entry.Time, metav1.Time{}).Time, map[string]any{}
		if entry.FieldsV1 == nil || json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields) != nil {
			continue
		}
		isOwner := slices.ContainsFunc(changed, func(d difference) bool {
			_, found, err := unstructured.NestedFieldNoCopy(fields, d.path...)
			return found && err == nil
		})
		isBetter := manager == "" || manager == fieldOwner || entry.Manager != fieldOwner && at.After(last)
		if isOwner && isBetter {
			manager, last = entry.Manager, at
		}
	}
	return manager
}
