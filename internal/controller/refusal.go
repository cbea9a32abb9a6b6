package controller

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
)

// remedies are what a person can do about a write of a target Secret that Kubernetes refuses, by what its message has.
// The first that fits is the cause.
var remedies = []struct{ text, remedy string }{
	{"exceeded quota", "raise this ResourceQuota, or delete what nobody needs in the namespace"},
	{"field is immutable when `immutable` is set", "delete this Secret: the operator makes it anew"},
	{"Request entity too large", "make what spec.target.template adds smaller"},
	{"Too long: ", "make what spec.target.template adds smaller"},
	{"denied request", "have the ValidatingAdmissionPolicy allow it"},
	{"denied the request", "have the admission webhook allow it"},
	{"is forbidden: User ", "give the operator's ServiceAccount this right: the roles in config/rbac have it"},
}

// isOwnerChangeDenied reports whether a write failed since the owner references may not be changed: where the admission
// plugin OwnerReferencesPermissionEnforcement is on, as on OpenShift, by whoever may not delete the object.
func isOwnerChangeDenied(err error) bool {
	const says = "cannot set an ownerRef on a resource you can't delete"
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), says)
}

func ownerChangeDenied(name string) error {
	return fmt.Errorf("this operator may not change the owner of Secret %s, which only matters to when that is "+
		"deleted: give the operator's ServiceAccount the verb delete on Secrets in this namespace, or delete the "+
		"Secret, and the operator makes it anew if it is needed", name)
}

// refused returns an error of a write that Kubernetes refuses for good as a problem that a person must mend, with the
// remedy; any other as it is.
func refused(err error) error {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) || problem.Of(err).Reason != v1alpha1.ReasonKubernetesAPIError {
		return err
	}
	switch status.Status().Code {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
	default:
		return err
	}
	remedy := "let Kubernetes accept it"
	for _, known := range remedies {
		if strings.Contains(err.Error(), known.text) {
			remedy = known.remedy
			break
		}
	}
	return problem.New(v1alpha1.ReasonWriteRefused, fmt.Errorf("%w; %s", err, remedy))
}
