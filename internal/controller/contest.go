package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/status"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

const (
	// atOnce is how many changes of a target Secret are put right at once. Those that follow wait: somebody comes back.
	atOnce = 3
	// quiet is after how long without a change those before are forgotten.
	quiet = 10 * time.Minute
	// restLook is how long a target Secret that waits to be put right isn't looked at again. It can cost a live read.
	restLook = time.Second
)

// contests has for each SFMCToken that exists how often others changed its target Secret. A restart may lose it.
type contests struct{ byName sync.Map }

// contest is used by the one goroutine that reconciles its SFMCToken.
type contest struct {
	// cause is what the target Secret was last right for. If it is wrong for the same cause, somebody else changed it.
	cause string
	// version is that of the target Secret when it was last right, or as its write came back.
	version string
	// changes counts those in a row; changed is when the last one was noticed, repaired when one was last put right.
	changes           int
	changed, repaired time.Time
	// denied is when the operator was not allowed to change the Secret's owner.
	denied time.Time
	// isSpoilt is true from when a change is noticed until it is put right.
	isSpoilt bool
	// message says who changes what, once there are too many. It isKnown if Kubernetes could be asked who.
	message string
	isKnown bool
	waiting *pendingRepair
}

// pendingRepair is what is known of a target Secret that waits to be put right.
type pendingRepair struct {
	until, looked time.Time
	desired       *token.Token
	result        status.Result
	// credentials and request are what the credentials' version and the refresh request were.
	credentials, request string
}

func (c *contests) of(key types.NamespacedName) *contest {
	found, _ := c.byName.LoadOrStore(key, &contest{})
	return found.(*contest) //nolint:forcetypeassert // nothing else is in it
}

func (c *contests) forget(key types.NamespacedName) { c.byName.Delete(key) }

// due returns when the target Secret, which isn't right for this cause, may be written. That is at once if the cause is
// new: a new token, another spec. What somebody else changed is put right at once a few times, then not sooner than 1 s
// after the last time, doubled up to 60 s.
func (c *contest) due(cause string, now time.Time) time.Time {
	if c.cause != cause {
		return now
	}
	if !c.isSpoilt {
		if now.Sub(c.changed) >= quiet {
			c.changes, c.message, c.isKnown = 0, "", false
		}
		c.changes, c.changed, c.isSpoilt = c.changes+1, now, true
	}
	if c.changes <= atOnce {
		return now
	}
	return c.repaired.Add(problem.New(v1alpha1.ReasonRepairDelayed, nil).Delay(c.changes - atOnce))
}

// wrote notes that the target Secret was written, as that version; none if somebody else was faster.
func (c *contest) wrote(cause, version string, now time.Time) {
	if c.cause == cause {
		c.repaired = now
	}
	if version != "" {
		c.cause, c.version = cause, version
	}
	c.isSpoilt = false
}

// isRight notes that the target Secret is as it should be.
func (c *contest) isRight(cause, version string) {
	c.cause, c.version, c.isSpoilt = cause, version, false
}

func (c *contest) isOn(now time.Time) bool { return c.changes > atOnce && now.Sub(c.changed) < quiet }

// report returns what the status says of the contest; nil if there is none.
func (c *contest) report(now time.Time) *status.Contest {
	if !c.isOn(now) {
		return nil
	}
	reported := &status.Contest{Message: c.message, Again: c.changed.Add(quiet)}
	if c.waiting != nil {
		reported.Again = c.waiting.until
	}
	return reported
}

// causeOf returns a digest of what gives the operator something else to write. Credentials and refresh requests do
// only if they bring another token: who changes those as well is no better.
func causeOf(obj *v1alpha1.SFMCToken, held *token.Token) string {
	return token.Hash(string(obj.UID), fmt.Sprint(obj.Generation), held.Proof)
}

// ensure makes the target Secret hold the token that it should, unless it waits to be put right. Then nothing is read
// or asked for, until its time has come or there is something else to do.
func (r *Reconciler) ensure(ctx context.Context, obj *v1alpha1.SFMCToken) status.Result {
	key := client.ObjectKeyFromObject(obj)
	c, now := r.contests.of(key), r.clock.Now()
	if c.waiting != nil && r.isWaiting(ctx, obj, c, now) {
		return c.waiting.result
	}
	c.waiting = nil
	result := r.ensureToken(ctx, obj)
	failed := problem.Of(result.Err)
	switch {
	case failed != nil && failed.Revokes:
		r.contests.forget(key) // if access comes back, its token is no repair
		return result
	case failed != nil && failed.Reason != v1alpha1.ReasonRepairDelayed:
		c.waiting = nil // there is more to do than to wait
	}
	result.Contest = c.report(now)
	if c.waiting != nil {
		c.waiting.result, c.waiting.request = result, obj.RefreshRequest()
		c.waiting.credentials, _ = r.credentials.Of(obj).Version(ctx) // unknown is another one
	}
	return result
}

// isWaiting reports whether there is nothing to do for an SFMCToken but to wait until its target Secret is put right.
func (r *Reconciler) isWaiting(ctx context.Context, obj *v1alpha1.SFMCToken, c *contest, now time.Time) bool {
	reference, waiting := r.credentials.Of(obj), c.waiting
	version, err := reference.Version(ctx)
	identities := append([]string{waiting.desired.Identity}, waiting.result.Notes.Aliases...)
	newest := r.issuer.Newest(waiting.desired, identities)
	isSame := err == nil && version == waiting.credentials && obj.RefreshRequest() == waiting.request &&
		reference.Allow(ctx) == nil && causeOf(obj, newest) == c.cause && newest.IsFresh(now, obj.RefreshBefore())
	if !isSame || !now.Before(waiting.until) {
		return false
	}
	if waiting.result.Err != nil {
		return true // the token is gone, and what others make of it meanwhile doesn't count
	}
	next := waiting.looked.Add(restLook)
	if now.Before(next) && next.Before(waiting.until) {
		waiting.result.Contest = &status.Contest{Message: c.message, Again: next}
	}
	return now.Before(next)
}

// putRight makes the target Secret what it should be, in one request if nobody interferes. If somebody else keeps
// changing it, it may have to wait: that is a problem if the token isn't in it.
func (r *Reconciler) putRight(ctx context.Context, a *attempt, desired func(target.Target) *corev1.Secret) error {
	c, cause, now := r.contests.of(a.key), causeOf(a.obj, a.desired), r.clock.Now()
	for {
		secret := desired(a.current)
		c.leaveOwner(a, secret, now)
		if a.current.Secret != nil && equality.Semantic.DeepEqual(a.current.Secret, secret) {
			c.isRight(cause, secret.ResourceVersion)
			return nil
		}
		due := c.due(cause, now)
		if c.isOn(now) && !c.isKnown {
			c.message, c.isKnown = r.accuse(ctx, a.current.Secret, secret, c.version)
		}
		if now.Before(due) {
			return c.wait(a, due, now)
		}
		denied, err := r.objects.writeSecret(ctx, a.current.Secret, secret)
		if failed := problem.Of(err); failed != nil {
			if failed.Actor == problem.Nobody {
				c.wrote(cause, "", now)
			}
			return err
		}
		if denied != nil {
			c.denied = now
		}
		c.wrote(cause, secret.ResourceVersion, now)
		a.current = target.Of(secret) // as it came back, which an admission webhook may have changed
	}
}

// leaveOwner leaves the owner of a target Secret as it is for a while after the operator was denied to change it.
func (c *contest) leaveOwner(a *attempt, secret *corev1.Secret, now time.Time) {
	current := a.current.Secret
	if current == nil || c.denied.IsZero() || now.Sub(c.denied) >= quiet ||
		equality.Semantic.DeepEqual(current.OwnerReferences, secret.OwnerReferences) {
		return
	}
	a.ownerDenied = ownerChangeDenied(secret.Name)
	secret.OwnerReferences = current.OwnerReferences
}

// wait leaves the target Secret as it is until then.
func (c *contest) wait(a *attempt, until, now time.Time) error {
	c.waiting = &pendingRepair{until: until, looked: now, desired: a.desired}
	if held := a.current.Token; held != nil && held.AccessToken == a.desired.AccessToken {
		return nil // something else in it was changed
	}
	delayed := problem.New(v1alpha1.ReasonRepairDelayed, errors.New("the target Secret was changed by somebody else "+
		"again, and the token in it is gone; the condition TargetContested says by whom"))
	delayed.RetryAt = until
	return delayed
}
