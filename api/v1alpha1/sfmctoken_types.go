package v1alpha1

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RefreshRequestedAtAnnotation on an SFMCToken asks for a new token now, whatever is left of the old one's life:
// any value not handled before does it. The value handled last is in status.lastHandledRefreshRequest. Of each, the
// first MaxRefreshRequest bytes count, in whole characters.
const RefreshRequestedAtAnnotation = "sfmctoken.dev/refresh-requested-at"

// MaxRefreshRequest is how many bytes of the annotation RefreshRequestedAtAnnotation count.
const MaxRefreshRequest = 256

// DefaultRefreshBefore is how long before its expiry a token is replaced if spec.refreshBefore is absent.
const DefaultRefreshBefore = 5 * time.Minute

// DeletionPolicy says what becomes of the target Secret when its SFMCToken is deleted.
// +kubebuilder:validation:Enum=Delete;Retain
type DeletionPolicy string

const (
	// DeletionPolicyDelete lets the garbage collector delete the target Secret.
	DeletionPolicyDelete DeletionPolicy = "Delete"
	// DeletionPolicyRetain keeps the target Secret; the token in it is not refreshed any more.
	DeletionPolicyRetain DeletionPolicy = "Retain"
)

// Condition types of an SFMCToken. Of Stalled, Reconciling and RefreshFailing at most one is present, and none when all
// is well.
const (
	// ConditionReady is True while the target Secret holds a token for this spec that is valid now. When it is False,
	// its reason is the cause.
	ConditionReady = "Ready"
	// ConditionStalled is True while a person must act before a new token can be had, even if the old one is still
	// valid.
	ConditionStalled = "Stalled"
	// ConditionReconciling is True while there is no valid token, and the operator gets there by itself.
	ConditionReconciling = "Reconciling"
	// ConditionRefreshFailing is True while the token is valid, and refreshing it fails for what passes by itself.
	ConditionRefreshFailing = "RefreshFailing"
	// ConditionSuspended is True while spec.suspend is.
	ConditionSuspended = "Suspended"
	// ConditionScopesMissing is True while Salesforce grants less than spec.scopes asks for; the message lists it.
	ConditionScopesMissing = "ScopesMissing"
	// ConditionOwnerOutdated is True while the operator may not change the owner references of a target Secret, of this
	// or of an earlier name: it isn't deleted when it should be. Tokens are written and taken out all the same.
	ConditionOwnerOutdated = "OwnerOutdated"
	// ConditionCredentialsExpiring is True from 30 days before the client secret expires, as the credentials Secret
	// says, and Unknown if what it says can't be read.
	ConditionCredentialsExpiring = "CredentialsExpiring"
	// ConditionTargetContested is True while somebody else keeps changing the target Secret: until there was no change
	// for ten minutes. Its message names the field manager and what differed. The operator puts the first changes right
	// at once, then waits 1 s, doubling to 60 s. A new token doesn't wait, and neither does taking a token out.
	ConditionTargetContested = "TargetContested"
)

// Reasons of the ScopesMissing condition.
const (
	ReasonScopesNotGranted = "ScopesNotGranted"
)

// Reasons of the OwnerOutdated condition.
const (
	ReasonOwnerChangeDenied = "OwnerChangeDenied"
)

// Reasons of the TargetContested condition.
const (
	ReasonRepeatedChanges = "RepeatedChanges"
)

// Reasons of the CredentialsExpiring condition.
const (
	ReasonExpiring       = "Expiring"
	ReasonExpired        = "Expired"
	ReasonDateUnreadable = "DateUnreadable"
)

// Reasons of the Ready condition beside those of a problem: nothing else is wrong.
const (
	ReasonTokenValid    = "TokenValid"
	ReasonTokenExpired  = "TokenExpired"
	ReasonTokenOutdated = "TokenOutdated"
)

// ProblemReason is why there is no new token.
type ProblemReason string

// Reasons of the Stalled condition, and of Ready if there is no valid token: a person must act.
const (
	ReasonCredentialsInvalid ProblemReason = "CredentialsInvalid"
	ReasonHostNotAllowed     ProblemReason = "HostNotAllowed"
	ReasonTargetConflict     ProblemReason = "TargetConflict"
	ReasonAccessDenied       ProblemReason = "AccessDenied"
	ReasonTemplateInvalid    ProblemReason = "TemplateInvalid"
	ReasonRequestRefused     ProblemReason = "RequestRefused"
	ReasonWriteRefused       ProblemReason = "WriteRefused"
)

// Reasons of the Reconciling condition, and of Ready then, or of RefreshFailing while the token is valid: the operator
// waits or tries again.
const (
	ReasonCredentialsNotFound ProblemReason = "CredentialsNotFound"
	ReasonWaitingForTurn      ProblemReason = "WaitingForTurn"
	ReasonThrottled           ProblemReason = "Throttled"
	ReasonEndpointUnavailable ProblemReason = "EndpointUnavailable"
	ReasonUnreadableAnswer    ProblemReason = "UnreadableAnswer"
	ReasonKubernetesAPIError  ProblemReason = "KubernetesAPIError"
	ReasonRepairDelayed       ProblemReason = "RepairDelayed"
)

// Reasons of the Suspended condition, and of Ready if there is no valid token.
const (
	ReasonSuspended ProblemReason = "Suspended"
)

// SFMCToken keeps a Marketing Cloud access token fresh in a Secret.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=sfmct,categories=sfmc
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="BU",type=string,JSONPath=`.spec.accountID`
// +kubebuilder:printcolumn:name="Secret",type=string,JSONPath=`.status.targetSecretName`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.expiresAt`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:selectablefield:JSONPath=`.spec.accountID`
// +kubebuilder:selectablefield:JSONPath=`.spec.credentialsSecretRef.name`
// +kubebuilder:validation:XValidation:rule="has(self.spec.credentialsSecretRef.__namespace__) || (has(self.spec.target) && has(self.spec.target.name) ? self.spec.target.name : self.metadata.name) != self.spec.credentialsSecretRef.name",message="the target Secret must not be the credentials Secret: set spec.target.name to another name (absent, it is the SFMCToken's own)"
type SFMCToken struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata. The annotation sfmctoken.dev/refresh-requested-at, set to any
	// new value, asks for a new token now.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is what is wanted: which credentials, which business unit, which scopes, and where to write the token.
	// +required
	Spec SFMCTokenSpec `json:"spec"`

	// status is what the operator saw and did last. The target Secret is the record; status only reports it.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status SFMCTokenStatus `json:"status,omitzero"`
}

// SFMCTokenList is a list of SFMCTokens.
//
// +kubebuilder:object:root=true
type SFMCTokenList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard list metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitzero"`
	// items are the SFMCTokens.
	Items []SFMCToken `json:"items"`
}

// SFMCTokenSpec says which token is wanted.
// +kubebuilder:validation:XValidation:rule="!has(self.credentialsSecretRef.__namespace__) || has(self.accountID)",message="a credentialsSecretRef with a namespace needs accountID: access is granted for business units; write the business unit's MID"
type SFMCTokenSpec struct {
	// credentialsSecretRef names the Secret that holds client_id, client_secret and auth_base_uri of a
	// server-to-server package, under the names that Setup > Installed Packages shows.
	// +required
	CredentialsSecretRef CredentialsSecretReference `json:"credentialsSecretRef"`

	// accountID is the MID of the business unit that the token acts in: digits, in quotes.
	// Absent: the business unit in which the package was made.
	// +optional
	// +kubebuilder:validation:MaxLength=18
	// +kubebuilder:validation:XValidation:rule="self.matches('^[1-9][0-9]*$')",message="accountID is the business unit's MID: digits only, not starting with 0, in quotes, for example \"510004567\""
	AccountID string `json:"accountID,omitempty"`

	// scopes is the set of permissions to ask for, for example journeys_read. They are sent as written; what
	// Salesforce granted of them is in status.grantedScopes. Absent: all scopes of the package.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=200
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="scopes must not be an empty list: Salesforce would issue a token without any permission; leave scopes out to get all scopes of the package"
	Scopes []Scope `json:"scopes,omitempty"`

	// target says where and how the token is written. Absent: an Opaque Secret of this SFMCToken's name.
	// +optional
	Target *Target `json:"target,omitempty"`

	// refreshBefore is how long before its expiry the token is replaced, as a duration such as 5m, from 1m to 24h.
	// A token is never replaced before two thirds of its life have passed, less up to a twentieth. Absent: 5m.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1m') && duration(self) <= duration('24h')",message="refreshBefore must be a duration from 1m to 24h, for example 5m"
	RefreshBefore *metav1.Duration `json:"refreshBefore,omitempty"`

	// suspend stops token requests while it is true; the token in the target Secret stays and expires.
	// Absent: false.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// Scope is one permission of Marketing Cloud as Salesforce names it, for example email_read.
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:XValidation:rule="!self.contains(',')",message="a scope has no comma: write one scope per list item, for example [email_read, email_send]"
// +kubebuilder:validation:XValidation:rule="self.matches('^[!#-\\\\[\\\\]-~]+$')",message="a scope is one word such as journeys_read: no spaces, quotes or backslashes; write one scope per list item"
type Scope string

// CredentialsSecretReference names a credentials Secret.
type CredentialsSecretReference struct {
	// name of the credentials Secret.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="credentialsSecretRef.name must be the name of a Secret: lower-case letters, digits, '-' and '.'"
	Name string `json:"name"`

	// namespace of the credentials Secret. Another one than the SFMCToken's needs an SFMCAccessGrant there, for the
	// SFMCToken's namespace, its accountID, and each of its scopes. Absent: the SFMCToken's namespace.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Label().validate(self).hasValue()",message="credentialsSecretRef.namespace must be the name of a namespace: lower-case letters, digits and '-'"
	Namespace string `json:"namespace,omitempty"`
}

// Target describes the Secret that receives the token.
type Target struct {
	// name of the Secret. When it changes, the new Secret is written first, then the old one goes.
	// Absent: the SFMCToken's name.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!format.dns1123Subdomain().validate(self).hasValue()",message="target.name must be a valid Secret name: lower-case letters, digits, '-' and '.'"
	Name string `json:"name,omitempty"`

	// template adds labels, annotations and further keys to the Secret.
	// +optional
	Template *TargetTemplate `json:"template,omitempty"`

	// deletionPolicy says whether the Secret is deleted with its SFMCToken (Delete) or stays (Retain).
	// A retained Secret comes back to an SFMCToken of the same name. Absent: Delete.
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}

// TargetTemplate is what the target Secret carries beside the token.
type TargetTemplate struct {
	// metadata is added to the Secret's own.
	// +optional
	Metadata TargetMetadata `json:"metadata,omitzero"`

	// data has further keys of the Secret. Each value is a Go template, for example "Bearer {{ .AccessToken }}", that
	// is rendered from the token and written together with it. A change of it costs no token request.
	//
	// The fields are .AccessToken, .TokenType, .ExpiresAt (RFC 3339, UTC), .AccountID (empty if the spec names none),
	// .Scope (separated by spaces), .Scopes (a list), .RESTInstanceURL and .SOAPInstanceURL (with a trailing slash).
	//
	// There are if, with and range, and these functions: and, b64enc, eq, join SEPARATOR LIST, lower, ne, not, or,
	// print, replace OLD NEW TEXT, toJson, trimPrefix PREFIX TEXT, trimSuffix SUFFIX TEXT, upper, urlquery.
	//
	// A template that can't be rendered is Stalled with the reason TemplateInvalid: no token is asked for, and the
	// Secret stays as it is until the template is corrected.
	// +optional
	// +kubebuilder:validation:MaxProperties=20
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.matches('^[-._a-zA-Z0-9]{1,253}$') && k != '.' && !k.startsWith('..'))",message="data: a key is at most 253 letters, digits, '-', '_' and '.', and does not begin with '..'; write for example authorization or config.json"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !(k in ['access_token', 'token_type', 'expires_at', 'account_id', 'scope', 'rest_instance_url', 'soap_instance_url']))",message="data: access_token, token_type, expires_at, account_id, scope, rest_instance_url and soap_instance_url are the operator's own keys; use another key"
	Data map[string]TemplateText `json:"data,omitempty"`
}

// TemplateText is a Go template.
// +kubebuilder:validation:MaxLength=4096
type TemplateText string

// TargetMetadata is the metadata that a template can set.
type TargetMetadata struct {
	// labels of the Secret, beside the operator's own.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !format.qualifiedName().validate(k).hasValue())",message="labels: a key is a name of at most 63 letters, digits, '-', '_' and '.', optionally behind a DNS prefix and '/'"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !format.labelValue().validate(self[k]).hasValue())",message="labels: a value is at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"
	// +kubebuilder:validation:XValidation:rule="self.all(k, k != 'app.kubernetes.io/managed-by' && !k.startsWith('sfmctoken.dev/'))",message="labels: app.kubernetes.io/managed-by and sfmctoken.dev/ are the operator's own; use another key"
	Labels map[string]LabelValue `json:"labels,omitempty"`

	// annotations of the Secret, beside the operator's own.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !format.qualifiedName().validate(k).hasValue())",message="annotations: a key is a name of at most 63 letters, digits, '-', '_' and '.', optionally behind a DNS prefix and '/'"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('sfmctoken.dev/'))",message="annotations: sfmctoken.dev/ is the operator's own; use another key"
	Annotations map[string]AnnotationValue `json:"annotations,omitempty"`
}

// LabelValue is the value of a label.
// +kubebuilder:validation:MaxLength=63
type LabelValue string

// AnnotationValue is the value of an annotation.
// +kubebuilder:validation:MaxLength=4096
type AnnotationValue string

// SFMCTokenStatus is what the operator saw and did last.
type SFMCTokenStatus struct {
	// observedGeneration is the generation of the spec that this status is about; -1 before it is reconciled first.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions: Ready says whether the target Secret holds a token for this spec that is valid now. Beside it,
	// Stalled says that a person must act; Reconciling, or RefreshFailing while the token is valid, that the operator
	// waits or tries again by itself; Suspended, ScopesMissing, CredentialsExpiring, OwnerOutdated and TargetContested
	// what they are called.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// expiresAt is when the token in the target Secret expires, as Salesforce reported it.
	// +optional
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`

	// refreshAt is when the next token is asked for; absent while spec.suspend is true.
	// +optional
	RefreshAt *metav1.Time `json:"refreshAt,omitempty"`

	// lastRefreshAt is when the token in the target Secret was asked for.
	// +optional
	LastRefreshAt *metav1.Time `json:"lastRefreshAt,omitempty"`

	// targetSecretName is the Secret that holds the token.
	// +optional
	TargetSecretName string `json:"targetSecretName,omitempty"`

	// accountID is the business unit that the token in the target Secret was asked for; absent if the spec names none.
	// +optional
	AccountID string `json:"accountID,omitempty"`

	// grantedScopes are the scopes that Salesforce granted, which can be fewer than the spec asks for.
	// +optional
	// +listType=atomic
	GrantedScopes []string `json:"grantedScopes,omitempty"`

	// restInstanceURL is the base address of the tenant's REST API, with a trailing slash.
	// +optional
	RESTInstanceURL string `json:"restInstanceURL,omitempty"`

	// soapInstanceURL is the base address of the tenant's SOAP API, with a trailing slash.
	// +optional
	SOAPInstanceURL string `json:"soapInstanceURL,omitempty"`

	// clientSecretKey is the key of the credentials Secret whose client secret is in use: client_secret, or during a
	// rotation client_secret_staged.
	// +optional
	ClientSecretKey string `json:"clientSecretKey,omitempty"`

	// clientSecretExpiresAt is when the client secret expires, as client_secret_expires_at in the credentials Secret
	// says; absent if it says nothing.
	// +optional
	ClientSecretExpiresAt *metav1.Time `json:"clientSecretExpiresAt,omitempty"`

	// lastHandledRefreshRequest is the value of the annotation sfmctoken.dev/refresh-requested-at that the token
	// in the target Secret answers.
	// +optional
	LastHandledRefreshRequest string `json:"lastHandledRefreshRequest,omitempty"`

	// consecutiveFailures counts the failed attempts to get a new token since the last success.
	// +optional
	ConsecutiveFailures int32 `json:"consecutiveFailures,omitempty"`
}

// TargetSecretName returns the name of the Secret that receives the token.
func (t *SFMCToken) TargetSecretName() string {
	if t.Spec.Target != nil && t.Spec.Target.Name != "" {
		return t.Spec.Target.Name
	}
	return t.Name
}

// RetainsTarget reports whether the target Secret outlives this SFMCToken.
func (t *SFMCToken) RetainsTarget() bool {
	return t.Spec.Target != nil && t.Spec.Target.DeletionPolicy == DeletionPolicyRetain
}

// RefreshBefore returns how long before its expiry the token is replaced.
func (t *SFMCToken) RefreshBefore() time.Duration {
	if t.Spec.RefreshBefore == nil {
		return DefaultRefreshBefore
	}
	return t.Spec.RefreshBefore.Duration
}

// RefreshRequest returns what counts of the annotation that asks for a new token now; empty if there is none.
func (t *SFMCToken) RefreshRequest() string {
	request := t.Annotations[RefreshRequestedAtAnnotation]
	return strings.ToValidUTF8(request[:min(len(request), MaxRefreshRequest)], "")
}

// RequestedScopes returns the scopes that are asked for; none for all that the package has.
func (t *SFMCToken) RequestedScopes() []string {
	scopes := make([]string, 0, len(t.Spec.Scopes))
	for _, scope := range t.Spec.Scopes {
		scopes = append(scopes, string(scope))
	}
	return scopes
}

// TargetTemplate returns the target's template; without any, it is empty.
func (t *SFMCToken) TargetTemplate() TargetTemplate {
	if t.Spec.Target == nil || t.Spec.Target.Template == nil {
		return TargetTemplate{}
	}
	return *t.Spec.Target.Template
}
