package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// owner is the MID of the business unit in which the package was made. No manifest names it, as people need not.
const owner = "510000001"

// samples are the manifests of config/samples.
type samples struct {
	credentials                          corev1.Secret
	credentialsFile, credentialsManifest string

	tokens     []v1alpha1.SFMCToken
	otherFiles []string // all but the credentials

	watched                      v1alpha1.SFMCToken // the one that names a business unit
	watchedFile, watchedManifest string
}

// readSamples reads the manifests that kustomization.yaml lists, which are those that `kubectl apply -k` would apply.
func readSamples(dir string) (samples, error) {
	var s samples
	var kustomization struct {
		Resources []string `json:"resources"`
	}
	if _, err := readManifest(filepath.Join(dir, "kustomization.yaml"), &kustomization); err != nil {
		return s, err
	}
	for _, resource := range kustomization.Resources {
		if err := s.readSample(filepath.Join(dir, resource)); err != nil {
			return s, err
		}
	}
	if s.credentialsFile == "" || s.watchedFile == "" {
		return s, fmt.Errorf("%s needs a Secret and an SFMCToken with an accountID", dir)
	}
	return s, nil
}

func (s *samples) readSample(file string) error {
	var kind struct {
		Kind string `json:"kind"`
	}
	manifest, err := readManifest(file, &kind)
	if err != nil {
		return err
	}
	if kind.Kind == "Secret" {
		s.credentialsFile, s.credentialsManifest = file, manifest
		_, err = readManifest(file, &s.credentials)
		return err
	}
	s.otherFiles = append(s.otherFiles, file)
	if kind.Kind != "SFMCToken" {
		return nil
	}
	var token v1alpha1.SFMCToken
	if _, err := readManifest(file, &token); err != nil {
		return err
	}
	s.tokens = append(s.tokens, token)
	if token.Spec.AccountID != "" {
		s.watched, s.watchedFile, s.watchedManifest = token, file, manifest
	}
	return nil
}

// readManifest reads a file with one manifest, and returns its text too.
func readManifest(file string, into any) (string, error) {
	text, err := os.ReadFile(file) //nolint:gosec // a file of this repository
	if err != nil {
		return "", err
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		return "", errors.Join(errors.New(file), err)
	}
	return string(text), nil
}

func (s *samples) authBaseURI() string { return s.credentials.StringData["auth_base_uri"] }

// installedPackage is the package at Marketing Cloud that can serve the samples.
func (s *samples) installedPackage() sfmctest.Package {
	pkg := sfmctest.Package{
		ClientID:     s.credentials.StringData["client_id"],
		ClientSecret: s.credentials.StringData["client_secret"],
		AccountID:    owner,
	}
	for _, token := range s.tokens {
		if token.Spec.AccountID != "" {
			pkg.AccountIDs = append(pkg.AccountIDs, token.Spec.AccountID)
		}
		for _, scope := range token.Spec.Scopes {
			if !slices.Contains(pkg.Scopes, string(scope)) {
				pkg.Scopes = append(pkg.Scopes, string(scope))
			}
		}
	}
	return pkg
}
