package doctor

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/controller"
)

// Sharers finds, for each SFMCToken that holds a token, the others that share it. All it needs of the target Secrets is
// their metadata.
func Sharers(tokens []v1alpha1.SFMCToken, secrets []metav1.PartialObjectMetadata) map[types.NamespacedName][]types.NamespacedName {
	identities := map[types.NamespacedName][]string{}
	for i := range secrets {
		identities[keyOf(&secrets[i])] = controller.IdentitiesOf(&secrets[i])
	}
	holders := map[string][]types.NamespacedName{}
	held := func(token *v1alpha1.SFMCToken) []string {
		// The status names the Secret only while there is a token of this SFMCToken in it.
		return identities[types.NamespacedName{Namespace: token.Namespace, Name: token.Status.TargetSecretName}]
	}
	for i := range tokens {
		for _, identity := range held(&tokens[i]) {
			holders[identity] = append(holders[identity], keyOf(&tokens[i]))
		}
	}
	sharers := map[types.NamespacedName][]types.NamespacedName{}
	for i := range tokens {
		key := keyOf(&tokens[i])
		for _, identity := range held(&tokens[i]) {
			for _, other := range holders[identity] {
				if other != key && !slices.Contains(sharers[key], other) {
					sharers[key] = append(sharers[key], other)
				}
			}
		}
	}
	return sharers
}

func keyOf(object metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()}
}
