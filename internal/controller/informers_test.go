package controller

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// answer is what an API server, or what stands before it, may say.
type answer struct {
	name, retryAfter string
	status           int
	err              error
}

func (a answer) give(*http.Request) (*http.Response, error) {
	if a.err != nil {
		return nil, a.err
	}
	header := http.Header{}
	if a.retryAfter != "" {
		header.Set("Retry-After", a.retryAfter)
	}
	body := io.NopCloser(strings.NewReader("{}"))
	return &http.Response{StatusCode: a.status, Status: http.StatusText(a.status), Header: header, Body: body}, nil
}

func dialing(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }

var outages = []answer{
	{name: "refused", err: dialing(os.NewSyscallError("connect", syscall.ECONNREFUSED))},
	{name: "no route", err: dialing(os.NewSyscallError("connect", syscall.EHOSTUNREACH))},
	{name: "dropped", err: dialing(os.ErrDeadlineExceeded)},
	{name: "no such host", err: dialing(&net.DNSError{Err: "no such host", IsNotFound: true})},
	{name: "silent", err: errors.New("http2: client connection lost")},
	{name: "closed", err: io.ErrUnexpectedEOF},
	{name: "a load balancer without servers", status: 503},
	{name: "a gateway", status: 502},
	{name: "starting", status: 503, retryAfter: "5"},
	{name: "storage is initializing", status: 429, retryAfter: "1"},
}

func get(ctx context.Context, transport http.RoundTripper, query string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://kubernetes/api/v1/secrets"+query, nil)
	if err != nil {
		return nil, err
	}
	return transport.RoundTrip(request)
}

func TestAListIsAnsweredAsSoonAsTheAPIServerIsBack(t *testing.T) {
	for _, outage := range outages {
		for _, lasting := range []time.Duration{time.Second, 10 * time.Second, time.Minute, time.Hour} {
			t.Run(fmt.Sprintf("%s for %s", outage.name, lasting), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					g := NewWithT(t)
					back, asked := time.Now().Add(lasting), 0
					response, err := get(t.Context(), outlasting{roundTripper(func(r *http.Request) (*http.Response, error) {
						if asked++; time.Now().Before(back) {
							return outage.give(r)
						}
						return answer{status: 200}.give(r)
					})}, "")
					g.Expect(err).NotTo(HaveOccurred())
					g.Expect(response.StatusCode).To(Equal(200))
					g.Expect(time.Since(back)).To(BeNumerically("<=", 1500*time.Millisecond))
					g.Expect(asked).To(BeNumerically("<=", 6+int(lasting/time.Second)), "about once a second")
				})
			})
		}
	}
}

func TestWhatIsNoOutageIsLeftToTheInformer(t *testing.T) {
	others := []answer{
		{name: "an untrusted certificate", err: x509.UnknownAuthorityError{}},
		{name: "a refused certificate", err: &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}},
		{name: "a credential plugin", err: errors.New("getting credentials: exec: executable not found")},
		{status: 429, retryAfter: "30"},
	}
	for _, status := range []int{200, 400, 401, 403, 404, 410, 429, 500, 504} {
		others = append(others, answer{status: status})
	}
	for _, other := range others {
		t.Run(fmt.Sprintf("%s%d", other.name, other.status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				asked := 0
				response, err := get(ctx, outlasting{roundTripper(func(r *http.Request) (*http.Response, error) {
					asked++
					return other.give(r)
				})}, "")
				g.Expect(asked).To(Equal(1))
				if other.err != nil {
					g.Expect(err).To(Equal(other.err))
					return
				}
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(response.StatusCode).To(Equal(other.status))
			})
		})
	}
}

func TestAnAPIServerMayRefuseForAFewSecondsOnceItIsBack(t *testing.T) {
	for refusing, status := range map[time.Duration]int{4 * time.Second: 200, time.Hour: 403} {
		synctest.Test(t, func(t *testing.T) {
			g := NewWithT(t)
			began := time.Now()
			response, err := get(t.Context(), outlasting{roundTripper(func(r *http.Request) (*http.Response, error) {
				switch away := time.Since(began); {
				case away < 2*time.Second:
					return outages[0].give(r)
				case away < 2*time.Second+refusing:
					return answer{status: 403}.give(r)
				}
				return answer{status: 200}.give(r)
			})}, "")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(response.StatusCode).To(Equal(status))
			g.Expect(time.Since(began)).To(BeNumerically("<", 15*time.Second))
		})
	}
}

func TestNobodyIsAskedOnceTheInformerIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		_, err := get(ctx, outlasting{roundTripper(outages[0].give)}, "")
		g.Expect(err).To(MatchError(context.DeadlineExceeded))
		g.Expect(time.Since(began)).To(Equal(time.Minute))
	})
}

// kubernetes is an API server for one informer of SFMCTokens.
type kubernetes struct {
	mu     sync.Mutex
	away   error
	watch  *io.PipeWriter
	asked  int
	tokens int // their number, and the version
}

func (k *kubernetes) RoundTrip(request *http.Request) (*http.Response, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.asked++; k.away != nil {
		return nil, k.away
	}
	var body *io.PipeReader
	body, k.watch = io.Pipe()
	from := 0
	_, _ = fmt.Sscan(request.URL.Query().Get("resourceVersion"), &from)
	go func(watch *io.PipeWriter, until int) {
		for from++; from <= until; from++ {
			tell(watch, "ADDED", from, "")
		}
		if request.URL.Query().Get("sendInitialEvents") == "true" {
			tell(watch, "BOOKMARK", until, `,"annotations":{"k8s.io/initial-events-end":"true"}`)
		}
	}(k.watch, k.tokens)
	header := http.Header{"Content-Type": {"application/json"}}
	return &http.Response{StatusCode: 200, Header: header, Body: body, Request: request}, nil
}

func tell(watch io.Writer, event string, version int, more string) {
	_, _ = fmt.Fprintf(watch, `{"type":%q,"object":{"apiVersion":"sfmctoken.dev/v1alpha1","kind":"SFMCToken","metadata":`+
		`{"namespace":"marketing","name":"token-%d","resourceVersion":"%d"%s}}}`+"\n", event, version, version, more)
}

// breakDown is an outage; the watch that is under way ends with an error.
func (k *kubernetes) breakDown(with error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.away = with
	_ = k.watch.CloseWithError(with)
}

// recover ends it, after somebody made another SFMCToken.
func (k *kubernetes) recover() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.away = nil
	k.tokens++
}

// startCache makes a cache and returns the informer of SFMCTokens.
func startCache(t *testing.T, g *WithT, server http.RoundTripper,
	newCache func(*rest.Config, cache.Options) (cache.Cache, error)) toolscache.SharedIndexInformer {
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(v1alpha1.GroupVersion.WithKind("SFMCToken"), meta.RESTScopeNamespace)
	made, err := newCache(&rest.Config{Host: "https://kubernetes"}, cache.Options{
		Scheme: ManagerOptions(nil).Scheme, Mapper: mapper, HTTPClient: &http.Client{Transport: server},
	})
	g.Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- made.Start(ctx) }()
	t.Cleanup(func() { cancel(); g.Expect(<-done).To(Succeed()) })
	informer, err := made.GetInformer(ctx, &v1alpha1.SFMCToken{})
	g.Expect(err).NotTo(HaveOccurred())
	return informer.(toolscache.SharedIndexInformer) // controller-runtime has no others
}

func TestAnInformerIsBackWithTheAPIServerHoweverOftenThatWasAway(t *testing.T) {
	for _, outage := range outages {
		if outage.err == nil {
			continue
		}
		t.Run(outage.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				server := &kubernetes{tokens: 1}
				informer := startCache(t, g, server, newCache)
				seen := func() int { return len(informer.GetIndexer().ListKeys()) }
				synctest.Wait()
				g.Expect(seen()).To(Equal(1))
				for _, lasting := range []time.Duration{0, 1, 1, 1, 10, 60, 1, 1, 1} {
					asked := server.asked
					server.breakDown(outage.err)
					time.Sleep(lasting * time.Second)
					server.recover()
					time.Sleep(1500 * time.Millisecond)
					synctest.Wait()
					g.Expect(seen()).To(Equal(server.tokens), "after %d s", lasting)
					g.Expect(server.asked-asked).To(BeNumerically("<=", 6+int(lasting)), "about once a second")
				}
			})
		})
	}
}
