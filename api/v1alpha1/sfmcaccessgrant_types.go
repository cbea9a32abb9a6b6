package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Reasons of the Ready condition of an SFMCAccessGrant.
const (
	// ReasonInForce says that all of the grant counts.
	ReasonInForce = "InForce"
	// ReasonTerminating says that the grant is being deleted, and that none of it counts.
	ReasonTerminating = "Terminating"
)

// Reasons of the Stalled condition of an SFMCAccessGrant: a person must act.
const (
	ReasonSelectorInvalid     = "SelectorInvalid"
	ReasonSelectorUnavailable = "SelectorUnavailable"
)

// SFMCAccessGrant lets SFMCTokens of other namespaces use a credentials Secret of its own namespace, for some business
// units. It grants nothing that isn't in it: a namespace, an account and every scope must be in one grant.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=sfmcgrant,categories=sfmc
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Secret",type=string,JSONPath=`.spec.credentialsSecretRef.name`
// +kubebuilder:printcolumn:name="BUs",type=string,JSONPath=`.spec.accountIDs`
// +kubebuilder:printcolumn:name="Tokens",type=integer,JSONPath=`.status.tokens`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type SFMCAccessGrant struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata. The namespace is that of the credentials Secret.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is what is granted to whom.
	// +required
	Spec SFMCAccessGrantSpec `json:"spec"`

	// status is what the operator made of it.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status SFMCAccessGrantStatus `json:"status,omitzero"`
}

// SFMCAccessGrantList is a list of SFMCAccessGrants.
//
// +kubebuilder:object:root=true
type SFMCAccessGrantList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard list metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitzero"`
	// items are the SFMCAccessGrants.
	Items []SFMCAccessGrant `json:"items"`
}

// SFMCAccessGrantSpec says what is granted to whom.
type SFMCAccessGrantSpec struct {
	// credentialsSecretRef names the credentials Secret, in the grant's namespace, that may be used.
	// +required
	CredentialsSecretRef GrantedSecretReference `json:"credentialsSecretRef"`

	// from says in which namespaces SFMCTokens may use it: at least one entry.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	From []AccessGrantFrom `json:"from"`

	// accountIDs are the MIDs of the business units for which tokens may be had: at least one, digits, in quotes.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	AccountIDs []AccountID `json:"accountIDs"`

	// scopes is an upper bound: an SFMCToken must name its scopes, and each must be among these.
	// Absent: whatever the package has.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=200
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="scopes must not be an empty list: it would grant nothing; leave scopes out to grant whatever the package has"
	Scopes []Scope `json:"scopes,omitempty"`
}

// GrantedSecretReference names a credentials Secret in the grant's namespace.
type GrantedSecretReference struct {
	// name of the credentials Secret.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="credentialsSecretRef.name must be the name of a Secret: lower-case letters, digits, '-' and '.'"
	Name string `json:"name"`
}

// AccessGrantFrom is one namespace, or those with some labels.
// +kubebuilder:validation:XValidation:rule="has(self.__namespace__) != has(self.namespaceSelector)",message="each entry of from has either namespace or namespaceSelector, not both and not neither"
type AccessGrantFrom struct {
	// namespace is the name of one namespace.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Label().validate(self).hasValue()",message="from.namespace must be the name of a namespace: lower-case letters, digits and '-'"
	Namespace string `json:"namespace,omitempty"`

	// namespaceSelector selects namespaces by their labels; whoever may label a namespace decides then who gets a
	// token. An empty selector selects all namespaces.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
}

// AccountID is the MID of a business unit.
// +kubebuilder:validation:MaxLength=18
// +kubebuilder:validation:XValidation:rule="self.matches('^[1-9][0-9]*$')",message="an account ID is a business unit's MID: digits only, not starting with 0, in quotes, for example \"510004567\""
type AccountID string

// SFMCAccessGrantStatus is what the operator made of a grant.
type SFMCAccessGrantStatus struct {
	// observedGeneration is the generation of the spec that this status is about; -1 before it is reconciled first.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions: Ready says whether all of the grant counts, Stalled that a person must act.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// tokens is how many SFMCTokens use the credentials Secret by this grant. It follows changes by seconds.
	// +optional
	Tokens *int32 `json:"tokens,omitempty"`
}
