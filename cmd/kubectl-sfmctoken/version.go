package main

import (
	"context"
	"fmt"
	"strings"

	versions "k8s.io/apimachinery/pkg/util/version"

	"github.com/sfmctoken/sfmctoken-operator/internal/version"
)

// version prints the plugin's version, and which image the operator runs.
func (p *plugin) version(ctx context.Context, _ []string) error {
	fmt.Fprintf(p.Out, "Plugin    %s\n", version.Get())
	if p.clientOnly {
		return nil
	}
	deployments, err := p.deployments(ctx)
	if err != nil {
		return fmt.Errorf("look for the operator: %w", err)
	}
	for i := range deployments {
		fmt.Fprintf(p.Out, "Operator  %s (Deployment %s/%s)\n", managerOf(&deployments[i].Spec.Template.Spec).Image,
			deployments[i].Namespace, deployments[i].Name)
	}
	if len(deployments) == 0 {
		fmt.Fprintf(p.Out, "Operator  no Deployment in namespace %s\n", p.home)
		return errFound
	}
	return nil
}

// releaseOf returns the release that an image's tag or a module's version names; nil if it is none, as a build from a
// clone has.
func releaseOf(text string) *versions.Version {
	found, err := versions.ParseSemantic(text)
	if err != nil || found.PreRelease() != "" || found.BuildMetadata() != "" {
		return nil
	}
	return found
}

// tagOf returns the tag of an image; empty if it has none.
func tagOf(image string) string {
	image, _, _ = strings.Cut(image, "@")
	_, tag, _ := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	return tag
}
