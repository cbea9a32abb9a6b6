package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// sharers finds the SFMCTokens of one identity, by their target Secrets.
type sharers struct {
	cache  client.Reader
	memory *memory
	// wake has an SFMCToken reconciled after all that wait already.
	wake func(types.NamespacedName)
}

// recall returns the tokens that target Secrets hold of an identity, as far as the cache has them whole. Whoever takes
// one must have it proved.
func (s *sharers) recall(ctx context.Context, identity string) ([]*token.Token, error) {
	targets, err := s.targetsOf(ctx, identity)
	var held []*token.Token
	for i := range targets {
		if found := target.Of(&targets[i]).Token; found != nil {
			held = append(held, found)
		}
	}
	return held, err
}

// answer wakes the SFMCTokens that asked for a token, and, if there is a new one, those that hold another one of its
// identity. If there are several, their Secrets go first, then the statuses: the token before may be dead already.
func (s *sharers) answer(askers []issuer.Asker, issued *token.Token) {
	var keys []types.NamespacedName
	for _, asker := range askers {
		keys = append(keys, types.NamespacedName{Namespace: asker.Tenant, Name: asker.Name})
	}
	if issued != nil {
		keys = append(keys, s.holdersOfAnother(issued)...)
		slices.SortFunc(keys, func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) })
		keys = slices.Compact(keys)
	}
	for _, key := range keys {
		if issued != nil && len(keys) > 1 {
			s.memory.call(key)
		}
		s.wake(key)
	}
}

// holdersOfAnother returns the SFMCTokens that hold another token of the identity.
func (s *sharers) holdersOfAnother(issued *token.Token) (keys []types.NamespacedName) {
	targets, err := s.targetsOf(context.Background(), issued.Identity)
	if err != nil {
		return nil // they find the new token at their own refresh time
	}
	for i := range targets {
		sharer := target.Of(&targets[i])
		if sharer.Token == nil || sharer.Token.AccessToken != issued.AccessToken {
			keys = append(keys, types.NamespacedName{Namespace: targets[i].Namespace, Name: sharer.Record.Owner})
		}
	}
	return keys
}

func (s *sharers) targetsOf(ctx context.Context, identity string) ([]corev1.Secret, error) {
	var targets corev1.SecretList
	if err := s.cache.List(ctx, &targets, client.MatchingFields{indexIdentity: identity}); err != nil {
		return nil, fmt.Errorf("list the target Secrets: %w", err)
	}
	return targets.Items, nil
}

// memory has what this process knows of each SFMCToken while that exists, by its name. A restart may lose all of it.
type memory struct {
	readings, calls, standing sync.Map
	told                      atomic.Pointer[time.Time]
}

type standing struct {
	actor problem.Actor
	since time.Time
}

func (m *memory) forget(key types.NamespacedName) {
	m.readings.Delete(key)
	m.calls.Delete(key)
	m.standing.Delete(key)
}

// tells reports whether it is time to tell again, once in a minute, that another operator is at work.
func (m *memory) tells(now time.Time) bool {
	last := m.told.Load()
	return (last == nil || now.Sub(*last) >= time.Minute) && m.told.CompareAndSwap(last, &now)
}

// call remembers that the token was replaced for another SFMCToken of the identity: the Secret is yet to be written.
func (m *memory) call(key types.NamespacedName) { m.calls.Store(key, true) }

func (m *memory) takeCall(key types.NamespacedName) bool {
	_, found := m.calls.LoadAndDelete(key)
	return found
}

// stood returns for how long something has been wrong that the same actor has to mend.
func (m *memory) stood(key types.NamespacedName, failed *problem.Problem, now time.Time) time.Duration {
	if failed == nil {
		m.standing.Delete(key)
		return 0
	}
	found, _ := m.standing.Load(key)
	last, isStanding := found.(standing)
	if !isStanding || last.actor != failed.Actor {
		last = standing{failed.Actor, now}
		m.standing.Store(key, last)
	}
	return now.Sub(last.since)
}
