package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pollInterval is also how often the reader of step 6 makes a call.
const pollInterval = 200 * time.Millisecond

// target is what a consumer reads from the target Secret.
type target struct {
	token, expiresAt, restURL string
}

// readTarget reads the target Secret of the SFMCToken that is watched.
func (d *demo) readTarget(ctx context.Context) (target, error) {
	secret, err := d.client.CoreV1().Secrets(namespace).Get(ctx, d.samples.watched.TargetSecretName(), metav1.GetOptions{})
	if err != nil {
		return target{}, err
	}
	t := target{
		token:     string(secret.Data["access_token"]),
		expiresAt: string(secret.Data["expires_at"]),
		restURL:   string(secret.Data["rest_instance_url"]),
	}
	if t.token == "" {
		return t, fmt.Errorf("Secret %s holds no token", secret.Name) //nolint:staticcheck // a kind's name
	}
	if !slices.Contains(d.seen, t.token) {
		d.seen = append(d.seen, t.token)
	}
	return t, nil
}

// askTokenContext makes a REST call that says for whom a token acts, and fails unless that is the business unit that
// the SFMCToken names.
func (d *demo) askTokenContext(ctx context.Context, t target) (string, error) {
	body, err := get(ctx, d.standIn.Client(), t.restURL+"platform/v1/tokenContext", t.token)
	if err != nil {
		return "", err
	}
	var answer struct {
		Organization struct {
			ID json.Number `json:"id"`
		} `json:"organization"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return body, fmt.Errorf("tokenContext: %w", err)
	}
	if got, want := answer.Organization.ID.String(), d.samples.watched.Spec.AccountID; got != want {
		return body, fmt.Errorf("the token acts in business unit %q instead of %s", got, want)
	}
	return body, nil
}

func (d *demo) callWithToken(ctx context.Context) error {
	t, err := d.readTarget(ctx)
	if err != nil {
		return err
	}
	d.say("The demo makes this call itself:\n")
	d.say("$ token=$(kubectl -n %s get secret %s -o jsonpath='{.data.access_token}' | base64 -d)",
		namespace, d.samples.watched.TargetSecretName())
	d.say("$ curl --cacert %s -H \"Authorization: Bearer $token\" %splatform/v1/tokenContext", d.caFile(), t.restURL)
	body, err := d.askTokenContext(ctx, t)
	if err := d.showResult(body, err); err != nil {
		return err
	}
	d.say("$token is %s… (%d characters). The organization is the business unit that the sample names: %s.",
		t.token[:min(10, len(t.token))], len(t.token), d.samples.watched.Spec.AccountID)
	return nil
}

// reader is a consumer that reads the token from the Secret for each call.
type reader struct {
	calls, failed int
	lastFailure   error
}

func (d *demo) watchRefresh(ctx context.Context) error {
	before, err := d.readTarget(ctx)
	if err != nil {
		return err
	}
	d.say("A reader calls tokenContext every %s with the token that the Secret holds at that moment. The token is\n"+
		"replaced after two thirds of its life:\n", pollInterval)
	var r reader
	after, err := d.readUntilReplaced(ctx, &r, before)
	if err != nil {
		return err
	}
	d.say("\nThe token that expires at %s was replaced by one that expires at %s.", before.expiresAt, after.expiresAt)
	requests := d.standIn.CountFor(d.samples.installedPackage().ClientID, d.samples.watched.Spec.AccountID)
	d.say("Calls: %d, of which failed: %d. Tokens in the Secret so far: %d, token requests for them: %d.",
		r.calls, r.failed, len(d.seen), requests)
	if r.failed > 0 {
		return fmt.Errorf("%d of %d calls failed, the last one so: %w", r.failed, r.calls, r.lastFailure)
	}
	if requests != len(d.seen) {
		return fmt.Errorf("%d token requests for %d tokens", requests, len(d.seen))
	}
	return nil
}

// readUntilReplaced makes calls until one was made with another token than before, and returns that one.
func (d *demo) readUntilReplaced(ctx context.Context, r *reader, before target) (target, error) {
	started := time.Now()
	told := 0
	var now target
	err := poll(ctx, 2*tokenLife, func() error {
		var err error
		if now, err = d.readTarget(ctx); err == nil {
			_, err = d.askTokenContext(ctx, now)
		}
		r.calls++
		if err != nil {
			r.failed++
			r.lastFailure = err
		}
		replaced := err == nil && now.token != before.token
		if seconds := int(time.Since(started).Seconds()); replaced || seconds >= told+5 {
			told = seconds
			d.say("after %2d s: %3d calls, %d failed", seconds, r.calls, r.failed)
		}
		if err == nil && !replaced {
			err = errors.New("the token was not replaced")
		}
		return err
	})
	return now, err
}
