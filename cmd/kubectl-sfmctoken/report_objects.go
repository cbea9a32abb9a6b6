package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

// leftOut stands for a value that may be secret.
const leftOut = "(left out)"

// redactedMeta returns what a report has of an object's metadata: annotations without their values, except those keys.
func redactedMeta(from metav1.ObjectMeta, shown ...string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: from.Namespace, Name: from.Name, UID: from.UID, Generation: from.Generation,
		ResourceVersion: from.ResourceVersion, CreationTimestamp: from.CreationTimestamp,
		DeletionTimestamp: from.DeletionTimestamp, Labels: from.Labels, OwnerReferences: from.OwnerReferences,
		Finalizers: from.Finalizers, Annotations: redacted(from.Annotations, shown...),
	}
}

// redacted returns the same keys without their values, except those that are shown.
func redacted[M ~map[K]V, K ~string, V ~string](values M, shown ...K) M {
	if values == nil {
		return nil
	}
	without := M{}
	for key, value := range values {
		if without[key] = leftOut; slices.Contains(shown, key) {
			without[key] = value
		}
	}
	return without
}

// reportTokens adds the SFMCTokens, without what their templates say.
func (p *plugin) reportTokens(ctx context.Context, contents *contents) []v1alpha1.SFMCToken {
	list, err := p.tokens(p.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		contents.miss(fmt.Errorf("list SFMCTokens: %w", err))
		return nil
	}
	for i := range list.Items {
		token := &list.Items[i]
		token.ObjectMeta = redactedMeta(token.ObjectMeta, v1alpha1.RefreshRequestedAtAnnotation)
		if token.Spec.Target != nil && token.Spec.Target.Template != nil {
			template := token.Spec.Target.Template
			template.Data = redacted(template.Data)
			template.Metadata.Annotations = redacted(template.Metadata.Annotations)
		}
	}
	contents.addJSON("sfmctokens.json", list)
	return list.Items
}

// reportGrants adds the SFMCAccessGrants of the namespaces that credentials are in.
func (p *plugin) reportGrants(ctx context.Context, contents *contents, tokens []v1alpha1.SFMCToken) {
	namespaces := map[string]bool{p.namespace: true}
	if p.namespace != "" { // else all are listed
		for i := range tokens {
			namespaces[credentialsOf(&tokens[i]).Namespace] = true
		}
	}
	grants := []v1alpha1.SFMCAccessGrant{}
	for _, namespace := range slices.Sorted(maps.Keys(namespaces)) {
		list, err := p.grants(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			contents.miss(fmt.Errorf("list SFMCAccessGrants: %w", err))
			continue
		}
		for i := range list.Items {
			list.Items[i].ObjectMeta = redactedMeta(list.Items[i].ObjectMeta)
		}
		grants = append(grants, list.Items...)
	}
	contents.addJSON("sfmcaccessgrants.json", grants)
}

// reportEvent is what a report has of an event.
type reportEvent struct {
	Last      metav1.Time `json:"last"`
	Namespace string      `json:"namespace"`
	About     string      `json:"about"`
	Type      string      `json:"type"`
	Reason    string      `json:"reason"`
	Message   string      `json:"message"`
}

func (p *plugin) reportEvents(ctx context.Context, contents *contents) {
	all := []reportEvent{}
	for _, kind := range []string{"SFMCToken", "SFMCAccessGrant"} {
		events, err := p.eventsOf(ctx, p.namespace, fields.Set{"involvedObject.kind": kind})
		if err != nil {
			contents.miss(err)
			break // the other kind's can't be listed either
		}
		for i := range events {
			event := &events[i]
			all = append(all, reportEvent{lastSeen(event), event.Namespace, kind + " " + event.InvolvedObject.Name,
				event.Type, event.Reason, doctor.OneLine(event.Message)})
		}
	}
	contents.addJSON("events.json", all)
}

// reportSecret is what a report has of a Secret, of which nothing but the metadata was read.
type reportSecret struct {
	Metadata metav1.ObjectMeta          `json:"metadata"`
	Record   map[string]json.RawMessage `json:"record,omitempty"`
}

// reportSecrets adds what is known of the Secrets that the SFMCTokens refer to, or write.
func (p *plugin) reportSecrets(ctx context.Context, contents *contents, tokens []v1alpha1.SFMCToken) {
	names := map[types.NamespacedName]bool{}
	for i := range tokens {
		names[credentialsOf(&tokens[i])] = true
		for _, name := range []string{tokens[i].TargetSecretName(), tokens[i].Status.TargetSecretName} {
			if name != "" {
				names[types.NamespacedName{Namespace: tokens[i].Namespace, Name: name}] = true
			}
		}
	}
	byName := func(a, b types.NamespacedName) int { return cmp.Compare(a.String(), b.String()) }
	secrets := []reportSecret{}
	for _, name := range slices.SortedFunc(maps.Keys(names), byName) {
		secret, err := p.secrets.Namespace(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			contents.miss(fmt.Errorf("there is no Secret %s", name))
		case err != nil:
			contents.miss(fmt.Errorf("read the metadata of Secret %s: %w", name, err))
		default:
			secrets = append(secrets, reportSecret{redactedMeta(secret.ObjectMeta), target.PublicRecordOf(secret)})
		}
	}
	contents.addJSON("secrets.json", secrets)
}
