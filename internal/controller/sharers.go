package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

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

// recall returns the tokens that target Secrets hold of an identity. Whoever takes one must have it proved.
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

// call wakes the SFMCTokens that hold another token of the identity, but for the one for which it was asked.
func (s *sharers) call(ctx context.Context, issued *token.Token, askedFor types.NamespacedName) {
	targets, err := s.targetsOf(ctx, issued.Identity)
	if err != nil {
		return // they find the new token at their own refresh time
	}
	for i := range targets {
		sharer := target.Of(&targets[i])
		key := types.NamespacedName{Namespace: targets[i].Namespace, Name: sharer.Record.Owner}
		if key == askedFor || sharer.Token != nil && sharer.Token.AccessToken == issued.AccessToken {
			continue
		}
		s.memory.call(key)
		s.wake(key)
	}
}

func (s *sharers) targetsOf(ctx context.Context, identity string) ([]corev1.Secret, error) {
	var targets corev1.SecretList
	if err := s.cache.List(ctx, &targets, client.MatchingFields{indexIdentity: identity}); err != nil {
		return nil, fmt.Errorf("list the target Secrets: %w", err)
	}
	return targets.Items, nil
}

// memory has what this process knows of each SFMCToken while that exists, by its name. A restart may lose all of it.
type memory struct{ claims, calls, standing sync.Map }

// claim is what an SFMCToken has proved: that its credentials, in this version, are those of an identity.
type claim struct {
	owner       types.UID
	credentials string
	identity    string
}

type standing struct {
	actor problem.Actor
	since time.Time
}

func (m *memory) forget(key types.NamespacedName) {
	m.claims.Delete(key)
	m.calls.Delete(key)
	m.standing.Delete(key)
}

func (m *memory) prove(key types.NamespacedName, proved claim) { m.claims.Store(key, proved) }

func (m *memory) hasProved(key types.NamespacedName, proved claim) bool {
	last, _ := m.claims.Load(key)
	return last == proved
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
