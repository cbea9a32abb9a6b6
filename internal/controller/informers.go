package controller

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

const (
	// youngWatch is how old a watch should be when it ends. client-go backs off if a younger one brought nothing.
	youngWatch = time.Second
	// maxRetryAfter is what an API server asks for that starts or stops. More is asked for by one that is overloaded.
	maxRetryAfter = 5
	// maxRefusals is how often an API server that is back may refuse what it doesn't know yet to be allowed.
	maxRefusals = 5
	// quietFailures is how many failures aren't worth a line in the log: those of less than about two seconds.
	quietFailures = 4
)

// whileAway is how long a list or a watch waits before it asks an API server again that is away. Each informer has one
// under way, so one that is away for long is asked about once a second by each.
var whileAway = wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 10, Cap: time.Second}

// newCache makes a cache whose watches are back within a second or two of the API server. client-go's informers would
// wait for longer after each failure, up to a minute, and forget it only after two minutes.
func newCache(config *rest.Config, options cache.Options) (cache.Cache, error) {
	client := *options.HTTPClient
	client.Transport = outlasting{options.HTTPClient.Transport}
	options.HTTPClient = &client
	return cache.New(config, options)
}

// outlasting is for lists and watches alone. While the API server is away it asks again, so that the informers notice
// no failure. What is no outage they see as it is.
type outlasting struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t outlasting) RoundTrip(request *http.Request) (response *http.Response, err error) {
	ctx := request.Context()
	log := ctrl.Log.WithName("cache").WithValues("path", request.URL.Path)
	failures, refusals := 0, 0
	if ended := whileAway.DelayFunc().Until(ctx, true, true, func(context.Context) (bool, error) {
		response, err = t.RoundTripper.RoundTrip(request) //nolint:bodyclose // here, or by who asked
		switch {
		case ctx.Err() != nil:
			return true, nil //nolint:nilerr // it is in err
		case isOutage(response, err):
			if failures++; failures == quietFailures {
				log.Info("The API server is away; it is asked again every second", "why", why(response, err))
			}
		case failures > 0 && refusals < maxRefusals && isRefusal(response, err):
			refusals++
		default:
			return true, nil
		}
		if response != nil {
			_ = response.Body.Close() // nobody reads it
		}
		return false, nil
	}); ended != nil {
		return nil, ended
	}
	if failures >= quietFailures {
		log.Info("The API server is back")
	}
	if err == nil && request.URL.Query().Has("watch") {
		response.Body = newStream(ctx, response.Body)
	}
	return response, err
}

// isOutage reports whether nobody answered, or somebody who can't yet, or no longer. 500 and 504 may be about a single
// request: of objects that can't be read, or of a version that isn't there yet.
func isOutage(response *http.Response, err error) bool {
	if err != nil {
		var broken *net.OpError
		return errors.As(err, &broken) && broken.Op != "remote error" || // which is a refused certificate
			utilnet.IsProbableEOF(err) || utilnet.IsTimeout(err) || utilnet.IsHTTP2ConnectionLost(err)
	}
	switch response.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return true
	case http.StatusTooManyRequests:
		after, err := strconv.Atoi(response.Header.Get("Retry-After"))
		return err == nil && after <= maxRetryAfter
	}
	return false
}

func isRefusal(response *http.Response, err error) bool {
	return err == nil && (response.StatusCode == http.StatusForbidden || response.StatusCode == http.StatusUnauthorized)
}

func why(response *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	return response.Status
}

// stream is the body of a watch. However its connection ends, the watch seems to be closed in order, and not while it
// is young: then the informer asks for the next one at once, and goes on where it was.
type stream struct {
	io.ReadCloser
	young context.Context // also ends when nobody wants the watch any more
	end   context.CancelFunc
}

func newStream(ctx context.Context, body io.ReadCloser) *stream {
	s := &stream{ReadCloser: body}
	s.young, s.end = context.WithTimeout(ctx, youngWatch)
	return s
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err == nil || n > 0 {
		return n, nil
	}
	<-s.young.Done()
	return 0, io.EOF
}

// Close implements io.Closer.
func (s *stream) Close() error {
	s.end()
	return s.ReadCloser.Close()
}
