package faults

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// read reads one Secret after another from the API server and calls Marketing Cloud with its token, as consumers do.
func (o *observer) read(ctx context.Context, first int) {
	next := first
	every(ctx, 40*time.Millisecond, func(time.Time) {
		key, account := o.pick(next)
		next++
		if key.Name == "" {
			return
		}
		var secret corev1.Secret
		if admin.Get(ctx, key, &secret) != nil {
			return
		}
		acted, status := o.call(ctx, string(secret.Data["access_token"]))
		if status == 0 {
			return // nobody answered
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.calls++
		switch {
		case status == http.StatusUnauthorized:
			o.refused++
		case acted != account && len(o.broken) < 10:
			o.broken = append(o.broken, "a call with the token in "+key.String()+" acted in business unit "+acted+" instead of "+account)
		}
	})
}

// pick is one of the Secrets that were served.
func (o *observer) pick(n int) (client.ObjectKey, string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.targets) == 0 {
		return client.ObjectKey{}, ""
	}
	n %= len(o.targets)
	for key, target := range o.targets { // in an order of its own
		if n--; n < 0 && target.served {
			return key, target.account
		}
	}
	return client.ObjectKey{}, ""
}

// call returns the business unit in which a token acts and the status of the answer, 0 if there was none.
func (o *observer) call(ctx context.Context, token string) (string, int) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, o.standIn.URL()+"platform/v1/tokenContext", nil)
	if err != nil {
		return "", 0
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := o.standIn.Client().Do(request)
	if err != nil {
		return "", 0
	}
	defer response.Body.Close()
	var answer struct {
		Organization struct {
			ID json.Number `json:"id"`
		} `json:"organization"`
	}
	if json.NewDecoder(response.Body).Decode(&answer) != nil && response.StatusCode == http.StatusOK {
		return "", 0
	}
	return answer.Organization.ID.String(), response.StatusCode
}
