// Package v1alpha1 is the sfmctoken.dev API: what a person declares and what the operator reports.
//
// +kubebuilder:object:generate=true
// +groupName=sfmctoken.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: "sfmctoken.dev", Version: "v1alpha1"}

// AddToScheme registers the kinds of this package with a scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &SFMCToken{}, &SFMCTokenList{}, &SFMCAccessGrant{}, &SFMCAccessGrantList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
