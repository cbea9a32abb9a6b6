// Package layout knows what config/samples/gitops has in it.
package layout

import (
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// Dir is where the layout is.
func Dir() string { return harness.Path("config", "samples", "gitops") }

// Read reads a YAML file of the layout.
func Read(file string, into any) error {
	raw, err := os.ReadFile(filepath.Join(Dir(), file)) //nolint:gosec // of this repository
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// Package is the installed package that the layout's credentials are of, and its invented Authentication Base URI.
func Package() (sfmctest.Package, string, error) {
	var secret corev1.Secret
	if err := Read("platform/credentials.yaml", &secret); err != nil {
		return sfmctest.Package{}, "", err
	}
	return sfmctest.Package{
		ClientID: secret.StringData["client_id"], ClientSecret: secret.StringData["client_secret"],
		AccountID: "510000001", AccountIDs: []string{"510004567", "510009999"},
		Scopes: []string{"journeys_read", "data_extensions_write"},
	}, secret.StringData["auth_base_uri"], nil
}
