package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const (
	// platform is the namespace whose credentials the teams' namespaces are granted, for identitiesShared business
	// units: so each change matters to all SFMCTokens of its business unit, until they are looked at.
	platform = "bench-platform"
	// tokensOfTeam is how many SFMCTokens there are in the namespace of a team, each with a grant and a business unit
	// of its own. Every other team is granted by name, the rest by their namespace's label.
	tokensOfTeam = 8
	teamLabel    = "bench.sfmctoken.dev/team"
)

func teamName(team int) string { return fmt.Sprintf("bench-team-%03d", team) }

func isLabelled(team int) bool { return team%2 == 1 }

// teamToken is the key of an SFMCToken, of its target Secret, and by its name of its grant.
func teamToken(i int) client.ObjectKey {
	return client.ObjectKey{Namespace: teamName(i / tokensOfTeam), Name: tokenName(i)}
}

// grantOf covers one SFMCToken.
func grantOf(i int) *v1alpha1.SFMCAccessGrant {
	team := i / tokensOfTeam
	from := v1alpha1.AccessGrantFrom{Namespace: teamName(team)}
	if isLabelled(team) {
		from = v1alpha1.AccessGrantFrom{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{teamLabel: teamName(team)}}}
	}
	return &v1alpha1.SFMCAccessGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: platform, Name: tokenName(i)},
		Spec: v1alpha1.SFMCAccessGrantSpec{
			CredentialsSecretRef: v1alpha1.GrantedSecretReference{Name: credentialsName},
			From:                 []v1alpha1.AccessGrantFrom{from},
			AccountIDs:           []v1alpha1.AccountID{v1alpha1.AccountID(accountID(i % identitiesShared))},
		},
	}
}

// compareAccess has the operator, and then the floor, follow changes of who may use the credentials of another
// namespace, while there are as many grants as SFMCTokens.
func (b *bench) compareAccess(ctx context.Context) error {
	say("creating %d grants and their tokens", b.tokens)
	if err := b.createTeams(ctx); err != nil {
		return err
	}
	if err := b.followByOperator(ctx); err != nil {
		return err
	}
	return b.followByFloor(ctx)
}

// createTeams makes SFMCTokens and a grant for each, in place of the SFMCTokens that were there.
func (b *bench) createTeams(ctx context.Context) error {
	if err := errors.Join(b.deleteTokens(ctx, theNamespaces()), b.createNamespace(ctx, platform)); err != nil {
		return err
	}
	teams := (b.tokens + tokensOfTeam - 1) / tokensOfTeam
	if err := inParallel(ctx, teams, func(ctx context.Context, team int) error {
		return b.admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: teamName(team), Labels: map[string]string{teamLabel: teamName(team)}}})
	}); err != nil {
		return err
	}
	return inParallel(ctx, b.tokens, func(ctx context.Context, i int) error {
		token := harness.Token(teamToken(i).Namespace, teamToken(i).Name, credentialsName, accountID(i%identitiesShared))
		token.Spec.CredentialsSecretRef.Namespace = platform
		return errors.Join(b.admin.Create(ctx, grantOf(i)), b.admin.Create(ctx, token))
	})
}

func (b *bench) followByOperator(ctx context.Context) (err error) {
	say("operator: serving %d tokens by %d grants", b.tokens, b.tokens)
	m, err := b.startMeter(ctx, nil)
	if err != nil {
		return err
	}
	operator, err := b.startServing(ctx, b.tokens)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, operator.stop()) }()
	if err := b.awaitCounts(ctx, b.tokens); err != nil {
		return err
	}
	r, err := m.read(ctx, operator, time.Now())
	if err != nil {
		return err
	}
	r.name, r.tokens = fmt.Sprintf("start with %d grants for %d new tokens of %d identities", b.tokens, b.tokens, identitiesShared), b.tokens
	b.accessRows = append(b.accessRows, r)
	b.promise(r.requests == identitiesShared && r.identities == identitiesShared,
		"one token request for each of %d identities behind %d grants: %d for %d", identitiesShared, b.tokens, r.requests, r.identities)
	return b.measureAccess(ctx, operator, b.awaitCounts)
}

func (b *bench) followByFloor(ctx context.Context) (err error) {
	worker, err := b.startFloor(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, worker.stop()) }()
	if err := worker.tell(ctx, "follow"); err != nil {
		return err
	}
	return b.measureAccess(ctx, worker, func(context.Context, int) error { return nil })
}

// accessChange is one way in which access is taken away or given back.
type accessChange struct {
	name   string
	tokens int // that one change affects
	given  bool
	// make makes the change for the nth time and returns the number of the first token that it affects.
	make func(ctx context.Context, nth int) (int, error)
}

// accessChanges end as they begin, with all granted. Each is made for another token or team each time.
func (b *bench) accessChanges() []accessChange {
	ofGrant := func(nth int) int { return nth*tokensOfTeam + nth%tokensOfTeam }
	ofTeam := func(nth int) int { return (2*nth + 1) * tokensOfTeam }
	label := func(ctx context.Context, nth int, value string) (int, error) {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: teamToken(ofTeam(nth)).Namespace}}
		patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, teamLabel, value)
		return ofTeam(nth), b.admin.Patch(ctx, namespace, client.RawPatch(types.MergePatchType, []byte(patch)))
	}
	return []accessChange{
		{"a grant is deleted: target empty", 1, false, func(ctx context.Context, nth int) (int, error) {
			return ofGrant(nth), b.admin.Delete(ctx, grantOf(ofGrant(nth)))
		}},
		{"a grant is created: Ready", 1, true, func(ctx context.Context, nth int) (int, error) {
			return ofGrant(nth), b.admin.Create(ctx, grantOf(ofGrant(nth)))
		}},
		{fmt.Sprintf("a namespace loses its label: %d targets empty", tokensOfTeam), tokensOfTeam, false, func(ctx context.Context, nth int) (int, error) {
			return label(ctx, nth, "nobody")
		}},
		{fmt.Sprintf("a namespace gets its label: %d Ready", tokensOfTeam), tokensOfTeam, true, func(ctx context.Context, nth int) (int, error) {
			return label(ctx, nth, teamToken(ofTeam(nth)).Namespace)
		}},
	}
}

// measureAccess has a side follow all changes, each many times, one after the other.
func (b *bench) measureAccess(ctx context.Context, side *child, settled func(ctx context.Context, served int) error) error {
	seen, err := b.watchAccess(ctx)
	if err != nil {
		return err
	}
	defer seen.stop()
	for _, change := range b.accessChanges() {
		say("%s: %s, %d times", side.name, change.name, b.repetitions)
		m, err := b.startMeter(ctx, side)
		if err != nil {
			return err
		}
		waits, err := b.repeat(ctx, side, seen, change)
		if err != nil {
			return err
		}
		n := b.repetitions * change.tokens
		served := b.tokens
		if !change.given {
			served -= n
		}
		if err := settled(ctx, served); err != nil {
			return err
		}
		r, err := m.read(ctx, side, time.Now())
		if err != nil {
			return err
		}
		r.name, r.tokens, r.waits = change.name, n, waits
		b.promiseAccess(r, change.given)
		b.accessRows = append(b.accessRows, r)
	}
	return nil
}

// repeat makes a change some times and returns how long each took until it was seen in all that it affects.
func (b *bench) repeat(ctx context.Context, side *child, seen *accessWatch, change accessChange) ([]time.Duration, error) {
	var waits []time.Duration
	for nth := range b.repetitions {
		began := time.Now()
		first, err := change.make(ctx, nth)
		if err != nil {
			return nil, err
		}
		var affected []client.ObjectKey
		for i := range change.tokens {
			affected = append(affected, teamToken(first+i))
		}
		ended, err := seen.await(ctx, side, affected, change.given)
		if err != nil {
			return nil, fmt.Errorf("%s, for the %d. time: %w", change.name, nth+1, err)
		}
		waits = append(waits, ended.Sub(began))
	}
	slices.Sort(waits)
	return waits, nil
}

// awaitCounts waits until all grants report, and together as many SFMCTokens as are served.
func (b *bench) awaitCounts(ctx context.Context, served int) error {
	err := poll(ctx, 500*time.Millisecond, func() (bool, error) {
		var grants v1alpha1.SFMCAccessGrantList
		if err := b.admin.List(ctx, &grants); err != nil {
			return false, err
		}
		counted := 0
		for _, grant := range grants.Items {
			if grant.Status.ObservedGeneration != grant.Generation || grant.Status.Tokens == nil {
				return false, nil
			}
			counted += int(*grant.Status.Tokens)
		}
		return counted == served, nil
	})
	if err != nil {
		return fmt.Errorf("wait until the grants count %d SFMCTokens: %w", served, err)
	}
	return nil
}
