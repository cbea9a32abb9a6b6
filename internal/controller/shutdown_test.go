package controller

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// slow answers each read after a while, and counts those that are under way together.
type slow struct {
	client.Client
	reads, atOnce, most atomic.Int32
}

func (s *slow) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	s.reads.Add(1)
	s.most.Store(max(s.most.Load(), s.atOnce.Add(1)))
	defer s.atOnce.Add(-1)
	time.Sleep(50 * time.Millisecond)
	return apierrors.NewNotFound(schema.GroupResource{Resource: "sfmctokens"}, emea.Name)
}

// issuing has a token for everyone.
type issuing struct{}

func (issuing) RequestToken(context.Context, sfmc.TokenRequest) (sfmc.Token, *sfmc.Error) {
	return sfmc.Token{AccessToken: "token", ExpiresIn: 18 * time.Minute}, nil
}

func TestATokenThatComesInAShutdownIsWrittenAfterTheWorkersHaveFinished(t *testing.T) {
	g := NewWithT(t)
	server := &slow{}
	r := &Reconciler{
		objects:  &objects{client: server, newer: lru.New(1)},
		memory:   &memory{},
		contests: &contests{},
		clock:    clock.RealClock{},
		issuer: issuer.New(issuer.Options{
			Client: issuing{}, Clock: clock.RealClock{}, RequestRate: rate.Inf, RequestBurst: 1, MaxInFlight: 4,
			Recall:  func(context.Context, string) ([]*token.Token, error) { return nil, nil },
			Observe: func(string, *sfmc.Error, time.Duration) {},
			Wake:    func([]issuer.Asker, *token.Token) {},
		}),
	}
	ctx, stop := context.WithCancel(t.Context())
	_, err := r.issuer.Ask(ctx, &issuer.Want{
		Asker: askerOf(emea), Candidates: []issuer.Candidate{{IssuedFor: token.IssuedFor{Identity: "identity"}}},
	})
	g.Expect(err).To(HaveOccurred(), "it waits for the answer")
	g.Eventually(r.issuer.Untaken).Should(HaveLen(1))
	go func() { _, _ = r.Reconcile(ctx, ctrl.Request{NamespacedName: emea}) }()
	g.Eventually(server.reads.Load).Should(BeEquivalentTo(1))
	stop()
	g.Expect(r.sendRequests(ctx)).To(Succeed())
	g.Expect(int(server.reads.Load())).To(Equal(2), "one by the worker, and one for the token")
	g.Expect(int(server.most.Load())).To(Equal(1), "one after the other")
}
