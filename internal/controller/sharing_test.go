package controller

import (
	"context"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

// indexed is the index of target Secrets by identity.
type indexed struct {
	client.Client
	targets []corev1.Secret
}

func (i indexed) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	list.(*corev1.SecretList).Items = i.targets
	return nil
}

// sharers is a reconciler in whose index two Secrets hold aToken, and a token that replaces it.
func sharers() (*Reconciler, *issued) {
	other := holding(aToken())
	other.Namespace = "sales"
	next := aToken()
	next.AccessToken, next.IssuedAt, next.ExpiresAt = "the.next.token.text", next.IssuedAt.Add(1), next.ExpiresAt.Add(1)
	next.Proof = next.prove(hushSecret)
	asking := holding(aToken())
	asking.Annotations[recordAnnotation] = strings.Replace(asking.Annotations[recordAnnotation], `"journeys-emea"`, `"asking"`, 1)
	renewed := holding(next)
	renewed.Namespace = "renewed"
	return &Reconciler{
		Client: indexed{targets: []corev1.Secret{*holding(aToken()), *other, *renewed, *asking}},
		shared: make(chan event.GenericEvent),
	}, next
}

func TestANewTokenIsAnnouncedToAllWhoHoldAnotherOne(t *testing.T) {
	g := NewWithT(t)
	r, next := sharers()
	go func() {
		r.announceToken(t.Context(), next, types.NamespacedName{Namespace: "marketing", Name: "asking"})
		close(r.shared)
	}()
	var told []string
	for e := range r.shared {
		told = append(told, e.Object.GetNamespace()+"/"+e.Object.GetName())
	}
	g.Expect(told).To(Equal([]string{"marketing/journeys-emea", "sales/journeys-emea"}))
}

func TestAnAnnouncementDoesNotHoldUpAShutdown(t *testing.T) {
	g := NewWithT(t)
	r, next := sharers()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the queue's end of the channel is gone with it
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.announceToken(ctx, next, types.NamespacedName{})
	}()
	g.Eventually(done).Should(BeClosed(), "else the token that was just issued is never written")
}
