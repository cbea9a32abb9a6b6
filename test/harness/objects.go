package harness

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// Scheme has Kubernetes' kinds and the operator's.
var Scheme = func() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return scheme
}()

// Package is an installed package for tests: it serves three business units.
func Package() sfmctest.Package {
	return sfmctest.Package{
		ClientID:     "client-id-of-the-package",
		ClientSecret: "canary-client-secret-value",
		AccountID:    "510000001",
		AccountIDs:   []string{"510000001", "510004567", "510009999"},
		EnterpriseID: "510000001",
		Scopes:       []string{"email_read", "email_send", "journeys_read", "data_extensions_write"},
	}
}

// CredentialsSecret is the Secret that a person makes for a package at the stand-in, wherever that runs.
func CredentialsSecret(namespace, name string, standIn interface{ URL() string }, pkg sfmctest.Package) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		StringData: map[string]string{
			"client_id":     pkg.ClientID,
			"client_secret": pkg.ClientSecret + "\n", // as --from-file leaves it
			"auth_base_uri": standIn.URL(),
		},
	}
}

// Token is an SFMCToken that asks for one business unit.
func Token(namespace, name, credentials, accountID string) *v1alpha1.SFMCToken {
	return &v1alpha1.SFMCToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.SFMCTokenSpec{
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: credentials},
			AccountID:            accountID,
		},
	}
}
