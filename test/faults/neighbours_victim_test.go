package faults

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const (
	victimTokens = 20 // each of its own identity
	victimLife   = 15 * time.Second

	// What is promised to the victim, whoever its neighbours are.
	promised           = time.Second
	promisedRevocation = 2 * time.Second
)

// victim is measured during one row.
type victim struct {
	*neighbourhood
	done sync.WaitGroup
	stop context.CancelFunc

	refreshes, repairs, revocations delays
}

// delays are how late some things were that are due at once.
type delays struct {
	count          int
	worst, allowed time.Duration // the machine's allowance is that of the worst
	broken         []string
}

// add says when something was due and when it was done, or wasn't yet.
func (d *delays) add(m *machine, what string, due, done time.Time, promised time.Duration) {
	late, allowed := done.Sub(due), promised+m.allowance(span{due, done})
	if d.count++; late >= d.worst {
		d.worst, d.allowed = late, allowed
	}
	if late > allowed && len(d.broken) < 5 {
		d.broken = append(d.broken, fmt.Sprintf("%s: %s was %s late, allowed are %s", done.Format(time.TimeOnly), what,
			late.Round(time.Millisecond), allowed.Round(time.Millisecond)))
	}
}

func (d *delays) String() string {
	return fmt.Sprintf("%.2f s (%.2f s) of %d", d.worst.Seconds(), d.allowed.Seconds(), d.count)
}

// settle makes the victim's SFMCTokens, one after the other, so that their refreshes are spread over time.
func (h *neighbourhood) settle() {
	h.t.Helper()
	pkg := h.packages[0]
	for i, account := range pkg.AccountIDs {
		obj := harness.Token(h.namespaces[0], fmt.Sprintf("victim-%d", i), "package-0", account)
		h.observer.mu.Lock()
		h.observer.targets[client.ObjectKeyFromObject(obj)] = &seen{identity: pkg.ClientID + "/" + account, account: account}
		h.observer.mu.Unlock()
		h.create(obj)
		h.pass(time.Duration(soonest * float64(victimLife) / victimTokens))
	}
}

// issuedFor is what the operator asks for, for one of the victim's accounts.
func (h *neighbourhood) issuedFor(account string) token.IssuedFor {
	pkg := h.packages[0]
	return token.Identify(sfmc.TokenRequest{AuthHost: h.proxy.Listen, ClientID: pkg.ClientID, ClientSecret: pkg.ClientSecret, AccountID: account})
}

// startVictim measures the machine, repairs and revocations until the victim's end.
func (h *neighbourhood) startVictim() *victim {
	v := &victim{neighbourhood: h}
	var ctx context.Context
	ctx, v.stop = context.WithCancel(h.during)
	h.t.Cleanup(v.done.Wait) // if the row fails before its end
	v.done.Go(func() { h.machine.run(ctx, h.lender) })
	for _, measure := range []func(context.Context, int){v.repair, v.revoke} {
		n := 0
		v.done.Go(func() {
			every(ctx, 500*time.Millisecond, func(time.Time) { n++; measure(ctx, n) })
		})
	}
	return v
}

// end is the victim's part of the row.
func (v *victim) end(began time.Time) *victimRow {
	ended := time.Now()
	v.stop()
	v.done.Wait()
	v.measureRefreshes(began, ended)
	row := &victimRow{lasted: ended.Sub(began), refreshes: v.refreshes, repairs: v.repairs, revocations: v.revocations}
	row.outage, _, _, _ = v.observer.outcome()
	// A token that is refreshed late by what is allowed at most can be dead for as much as that exceeds its spare life.
	spare := victimLife / 3
	if allowed := promised + v.machine.allowance(span{began, ended}) - spare; row.outage > max(0, allowed) {
		row.broken = append(row.broken, fmt.Sprintf("a Secret held no living token for %s", row.outage))
	}
	for what, measured := range map[string]delays{"refresh": v.refreshes, "repair": v.repairs, "revocation": v.revocations} {
		if row.broken = append(row.broken, measured.broken...); measured.count == 0 {
			row.broken = append(row.broken, "no "+what+" came to its end")
		}
	}
	return row
}

// measureRefreshes compares when tokens were asked for with when they were due.
func (v *victim) measureRefreshes(began, ended time.Time) {
	o := v.observer
	o.mu.Lock()
	defer o.mu.Unlock()
	due := map[string]time.Time{}
	refreshed := func(account string, at time.Time) {
		from := due[account]
		if from.Before(began) {
			from = began // what is older is no matter of this row
		}
		if !at.Before(from) {
			v.refreshes.add(v.machine, "a refresh of account "+account, from, at, promised)
		}
	}
	for _, request := range o.asked {
		if request.ClientID != v.packages[0].ClientID || !request.Issued || request.Time.After(ended) {
			continue
		}
		if _, found := due[request.AccountID]; found && request.Time.After(began) {
			refreshed(request.AccountID, request.Time)
		}
		issued := token.Token{IssuedFor: v.issuedFor(request.AccountID), IssuedAt: request.Time, ExpiresAt: request.Time.Add(victimLife)}
		due[request.AccountID] = issued.RefreshAt(harness.Token("", "", "", "").RefreshBefore())
	}
	for account := range due {
		refreshed(account, ended) // what is overdue
	}
}

// justRefreshed is the account whose token was issued last, but not in this second. Nothing else happens to it for a
// while: a write that meets a refresh is in conflict with it, and is tried again a second later.
func (v *victim) justRefreshed() string {
	o := v.observer
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := len(o.asked) - 1; i >= 0; i-- {
		request := o.asked[i]
		if request.ClientID == v.packages[0].ClientID && request.Issued && time.Since(request.Time) > time.Second {
			return request.AccountID
		}
	}
	return v.packages[0].AccountIDs[0]
}

// repair measures until the Secret of a new SFMCToken is there, and, after it was deleted or spoilt, whole again.
func (v *victim) repair(ctx context.Context, n int) {
	account := v.justRefreshed()
	obj := harness.Token(v.namespaces[0], fmt.Sprintf("repaired-%d-%d", v.row, n), "package-0", account)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: obj.Name}}
	isWhole := func(token string) bool { is, alive := v.standIn.Check(token); return alive && is == account }
	defer v.remove(obj)
	if admin.Create(ctx, obj) != nil || !v.becomes(ctx, secret, &v.repairs, "a new SFMCToken", promised, isWhole) {
		return
	}
	spoil := func() error { return admin.Delete(ctx, secret.DeepCopy()) }
	if n%2 == 0 {
		spoilt := client.RawPatch("application/merge-patch+json", []byte(`{"stringData":{"access_token":"spoilt"}}`))
		spoil = func() error { return admin.Patch(ctx, secret.DeepCopy(), spoilt) }
	}
	if spoil() == nil {
		v.becomes(ctx, secret, &v.repairs, "a repair", promised, isWhole)
	}
}

// revoke measures until a token is gone, after the grant or the credentials were deleted for which it could be had.
func (v *victim) revoke(ctx context.Context, n int) {
	name, account := fmt.Sprintf("lent-%d-%d", v.row, n), v.justRefreshed()
	credentials := harness.CredentialsSecret(v.lender, name, v.standIn, v.packages[0])
	credentials.StringData["auth_base_uri"] = "https://" + v.proxy.Listen + "/"
	grant := &v1alpha1.SFMCAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: v.lender, Name: name}}
	grant.Spec.CredentialsSecretRef.Name = name
	grant.Spec.From = []v1alpha1.AccessGrantFrom{{Namespace: v.namespaces[0]}}
	grant.Spec.AccountIDs = []v1alpha1.AccountID{v1alpha1.AccountID(account)}
	obj := harness.Token(v.namespaces[0], name, name, account)
	obj.Spec.CredentialsSecretRef.Namespace = v.lender
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: name}}
	all := []client.Object{credentials, grant, obj}
	for _, object := range all {
		defer v.remove(object)
		if admin.Create(ctx, object) != nil {
			return
		}
	}
	isServed := func(token string) bool { return token != "" }
	isOut := func(token string) bool { return token == "" }
	unmeasured := &delays{} // that it is served at once is what repairs measure
	revoked := all[n%2].DeepCopyObject().(client.Object)
	if v.becomes(ctx, secret, unmeasured, "", patience, isServed) && admin.Delete(ctx, revoked) == nil {
		v.becomes(ctx, secret, &v.revocations, "a revocation", promisedRevocation, isOut)
	}
}

// becomes waits until the token in a Secret is as it should be, and notes how long that took, even if ctx ends before.
func (v *victim) becomes(ctx context.Context, secret *corev1.Secret, noted *delays, what string, promised time.Duration, should func(token string) bool) bool {
	due := time.Now()
	err := wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		held := &corev1.Secret{}
		err := admin.Get(ctx, client.ObjectKeyFromObject(secret), held)
		return client.IgnoreNotFound(err) == nil && should(string(held.Data["access_token"])), nil
	})
	noted.add(v.machine, what+" ("+secret.Name+")", due, time.Now(), promised)
	return err == nil
}

// remove deletes what was measured.
func (v *victim) remove(object client.Object) {
	if err := client.IgnoreNotFound(admin.Delete(v.ctx, object)); err != nil {
		v.t.Error(err)
	}
}
