package main

import (
	"context"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// permission is a right in the namespace of the SFMCTokens.
type permission struct{ verb, resource string }

// String implements fmt.Stringer.
func (r permission) String() string { return r.verb + " " + r.resource }

// need is what a command can't do without. With more rights, some show more: docs/plugin.md has all of them.
type need struct {
	command     string
	permissions []permission
}

var needs = []need{
	{"list", []permission{{"list", "sfmctokens.sfmctoken.dev"}}},
	{"list -w", []permission{{"list", "sfmctokens.sfmctoken.dev"}, {"watch", "sfmctokens.sfmctoken.dev"}}},
	{"status", []permission{{"get", "sfmctokens.sfmctoken.dev"}}},
	{"doctor", []permission{
		{"list", "sfmctokens.sfmctoken.dev"}, {"list", "deployments.apps"}, {"list", "statefulsets.apps"},
		{"list", "daemonsets.apps"}, {"list", "jobs.batch"}, {"list", "cronjobs.batch"}, {"list", "pods"},
	}},
	{"refresh", []permission{
		{"get", "sfmctokens.sfmctoken.dev"}, {"patch", "sfmctokens.sfmctoken.dev"},
		{"watch", "sfmctokens.sfmctoken.dev"},
	}},
	{"suspend, resume", []permission{{"patch", "sfmctokens.sfmctoken.dev"}}},
	{"whoami", []permission{{"get", "sfmctokens.sfmctoken.dev"}, {"get", "secrets"}}},
	{"report", []permission{{"list", "sfmctokens.sfmctoken.dev"}}},
}

// lacks returns which of the rights a person lacks.
func (p *plugin) lacks(ctx context.Context, permissions []permission) (lacking []string, err error) {
	for _, right := range permissions {
		resource := schema.ParseGroupResource(right.resource)
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: p.namespace, Verb: right.verb, Group: resource.Group, Resource: resource.Resource,
			},
		}}
		review, err := p.reviews.SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return nil, fmt.Errorf("ask what you may do: %w", err)
		}
		if !review.Status.Allowed {
			lacking = append(lacking, right.String())
		}
	}
	return lacking, nil
}

// checkPermissions says which commands a person may use in the namespace. That some may not be used is no problem.
func (p *plugin) checkPermissions(ctx context.Context) []checked {
	var all []checked
	where := "in namespace " + p.namespace
	if p.namespace == "" {
		where = "in all namespaces"
	}
	for _, need := range needs {
		lacking, err := p.lacks(ctx, need.permissions)
		says := "you may use it " + where
		verdict := isOK
		switch {
		case err != nil:
			verdict, says = isUnknown, err.Error()
		case len(lacking) > 0:
			verdict, says = isDenied, where+" you may not "+strings.Join(lacking, ", ")
		}
		all = append(all, checked{verdict, need.command, says})
	}
	return all
}
