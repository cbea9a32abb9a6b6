package main

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

// follow has the floor do two writes for each token whose grant, or the label of whose namespace, comes or goes. It
// knows which token that is by its name and doesn't look whether anything else grants it. It returns when it watches.
func (f *floor) follow(ctx context.Context) error {
	if err := f.readTargets(ctx); err != nil {
		return err
	}
	grants, err := f.tokens.Get().Namespace(platform).Resource("sfmcaccessgrants").
		Param("watch", "true").Param("resourceVersion", f.version).Watch(ctx)
	if err != nil {
		return err
	}
	namespaces, err := f.secrets.CoreV1().Namespaces().Watch(ctx, metav1.ListOptions{LabelSelector: teamLabel, ResourceVersion: f.version})
	if err != nil {
		return err
	}
	go func() { exitOn(f.followGrants(ctx, grants)) }()
	go func() { exitOn(f.followNamespaces(ctx, namespaces)) }()
	return nil
}

// readTargets notes the target Secrets, whose content is written again when access is given back.
func (f *floor) readTargets(ctx context.Context) error {
	secrets, err := f.secrets.CoreV1().Secrets("").List(ctx, metav1.ListOptions{LabelSelector: target.ManagedByLabel + "=" + target.ManagedByValue})
	if err != nil {
		return err
	}
	targets := map[string]*corev1.Secret{}
	for i := range secrets.Items {
		targets[secrets.Items[i].Name] = &secrets.Items[i]
	}
	for _, token := range f.work {
		if token.secret = targets[token.Name]; token.secret == nil {
			return fmt.Errorf("the SFMCToken %s has no target Secret", token.Name)
		}
	}
	f.version = secrets.ResourceVersion
	return nil
}

func (f *floor) followGrants(ctx context.Context, events watch.Interface) error {
	for event := range events.ResultChan() {
		grant, ok := event.Object.(*v1alpha1.SFMCAccessGrant)
		if !ok {
			break
		}
		for _, token := range f.work {
			if token.Name == grant.Name && event.Type != watch.Modified {
				go func() { exitOn(f.setAccess(ctx, token, event.Type == watch.Added)) }()
			}
		}
	}
	return errors.New("the watch of SFMCAccessGrants ended")
}

func (f *floor) followNamespaces(ctx context.Context, events watch.Interface) error {
	for event := range events.ResultChan() {
		namespace, ok := event.Object.(*corev1.Namespace)
		if !ok {
			break
		}
		for _, token := range f.work {
			if token.Namespace == namespace.Name {
				go func() { exitOn(f.setAccess(ctx, token, namespace.Labels[teamLabel] == namespace.Name)) }()
			}
		}
	}
	return errors.New("the watch of namespaces ended")
}

// setAccess writes what was in a target Secret and in the status, or takes it out.
func (f *floor) setAccess(ctx context.Context, token *floorToken, given bool) error {
	secret := token.secret.DeepCopy()
	var status any = token.Status
	if !given {
		secret.Data = nil
		status = composeDenial(token)
	}
	written, err := f.secrets.CoreV1().Secrets(token.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	token.secret.ResourceVersion = written.ResourceVersion
	return f.patchStatus(ctx, token, status)
}
