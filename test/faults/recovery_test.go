package faults

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// seenWithin is how soon after its return the operator knows what changed while the API server was away.
const seenWithin = 5 * time.Second

// unhurried has tokens that live for long: only a change that is seen makes the operator do anything.
var unhurried = shape{life: time.Hour, namespaces: 2, packages: 1, accounts: 1, each: 1}

// road is the way to the API server. toxiproxy has no connections that stay silent although new ones are well.
type road struct {
	t            *testing.T
	address, end string
	listener     net.Listener
	mu           sync.Mutex
	silent       bool
	lanes        map[*lane]bool
}

// lane is a connection. One that fell silent stays so for ever, as those to a node that died.
type lane struct {
	here, there net.Conn
	silent      bool
}

func (l *lane) close() { _, _ = l.here.Close(), l.there.Close() }

func newRoad(t *testing.T, config *rest.Config) (*road, *rest.Config) {
	t.Helper()
	g := NewWithT(t)
	server, err := url.Parse(config.Host)
	g.Expect(err).NotTo(HaveOccurred())
	address, err := harness.FreeAddress()
	g.Expect(err).NotTo(HaveOccurred())
	r := &road{t: t, address: address, end: server.Host, lanes: map[*lane]bool{}}
	r.open()
	t.Cleanup(r.close)
	config = rest.CopyConfig(config)
	config.Host = "https://" + address
	return r, config
}

func (r *road) open() {
	r.t.Helper()
	listener, err := net.Listen("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.listener = listener
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.take(conn)
		}
	}()
}

func (r *road) take(conn net.Conn) {
	there, err := net.Dial("tcp", r.end)
	if err != nil {
		_ = conn.Close()
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &lane{conn, there, r.silent}
	r.lanes[l] = true
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(r.unlessSilent(l, to), from)
		if !r.isSilent(l) {
			l.close()
		}
	}
	go pass(there, conn)
	go pass(conn, there)
}

func (r *road) isSilent(l *lane) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return l.silent
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// unlessSilent drops what is written to a silent lane.
func (r *road) unlessSilent(l *lane, to io.Writer) io.Writer {
	return writer(func(p []byte) (int, error) {
		if r.isSilent(l) {
			return len(p), nil
		}
		return to.Write(p)
	})
}

// close cuts all connections and refuses new ones.
func (r *road) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.lanes {
		l.close()
	}
	clear(r.lanes)
}

// setSilent drops what comes from now on, on connections that there are and on new ones; or on those that there were.
func (r *road) setSilent(silent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent = silent
	for l := range r.lanes {
		l.silent = l.silent || silent
	}
}

// recovery is a world in which a person changes something while the API server is away.
type recovery struct {
	*world
	own     client.ObjectKey // the target of an SFMCToken beside the credentials that are changed
	granted client.ObjectKey // that of one in the other namespace, which needs a grant
	secrets int              // how many client secrets there were after the first one
	took    []string
	late    []string
}

func newRecovery(t *testing.T, shape shape, config *rest.Config) *recovery {
	w := &recovery{world: newWorld(t, shape)}
	w.kubernetes = config
	w.own = client.ObjectKey{Namespace: w.namespaces[0], Name: "token-0-" + w.packages[0].AccountIDs[0] + "-0"}
	w.grant()
	token := harness.Token(w.namespaces[1], "granted", "package-0", w.packages[0].AccountIDs[0])
	token.Spec.CredentialsSecretRef.Namespace = w.namespaces[0]
	w.create(token)
	w.granted = client.ObjectKeyFromObject(token)
	w.startOperator()
	w.settled()
	return w
}

func (w *recovery) grant() {
	w.t.Helper()
	grant := &v1alpha1.SFMCAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespaces[0], Name: "grant"}}
	grant.Spec.CredentialsSecretRef.Name = "package-0"
	grant.Spec.AccountIDs = []v1alpha1.AccountID{v1alpha1.AccountID(w.packages[0].AccountIDs[0])}
	grant.Spec.From = []v1alpha1.AccessGrantFrom{{Namespace: w.namespaces[1]}}
	w.create(grant)
}

// held is the token in a target Secret; "" if there is none, or nobody to ask.
func (w *recovery) held(key client.ObjectKey) (string, error) {
	var secret corev1.Secret
	err := admin.Get(w.ctx, key, &secret)
	return string(secret.Data["access_token"]), client.IgnoreNotFound(err)
}

func (w *recovery) settled() {
	w.t.Helper()
	w.served()
	w.Eventually(func() (string, error) { return w.held(w.granted) }).ShouldNot(BeEmpty())
}

// change is a person's new client secret, in the first namespace, and a revocation there.
func (w *recovery) change() error {
	pkg := w.packages[0]
	pkg.ClientSecret = fmt.Sprintf("canary-client-secret-%d", w.secrets+1)
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"stringData":{"client_secret":%q}}`, pkg.ClientSecret))
	credentials := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespaces[0], Name: "package-0"}}
	if err := w.standIn.AddPackage(pkg); err != nil {
		return err
	}
	if err := admin.Patch(w.ctx, credentials, patch); err != nil {
		return err
	}
	w.secrets++
	return admin.Delete(w.ctx, &v1alpha1.SFMCAccessGrant{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespaces[0], Name: "grant"}})
}

// changed waits until the operator has seen the change, and says how long after the API server's return that was.
func (w *recovery) changed(outage string, before string, back time.Time) {
	w.t.Helper()
	var rotated, revoked time.Duration
	w.Eventually(func(g Gomega) {
		mine, err := w.held(w.own)
		g.Expect(err).NotTo(HaveOccurred())
		if rotated == 0 && mine != "" && mine != before {
			rotated = time.Since(back)
		}
		theirs, err := w.held(w.granted)
		g.Expect(err).NotTo(HaveOccurred())
		if revoked == 0 && theirs == "" {
			revoked = time.Since(back)
		}
		g.Expect(min(rotated, revoked)).NotTo(BeZero())
	}).Should(Succeed())
	w.took = append(w.took, fmt.Sprintf("%s: %.1f s, %.1f s", outage, rotated.Seconds(), revoked.Seconds()))
	w.observer.mu.Lock()
	slack := w.observer.slack()
	w.observer.mu.Unlock()
	if slowest := max(rotated, revoked); slowest > seenWithin+slack {
		w.late = append(w.late, fmt.Sprintf("after an outage of %s a change was seen after %s; allowed are %s, and %s for the machine", outage, slowest, seenWithin, slack))
	}
}

// outage lets the API server be away, changes something meanwhile or as soon as it can be, and puts all in order again.
func (w *recovery) outage(lasting time.Duration, begin func(), end func() (back time.Time)) {
	w.t.Helper()
	before, err := w.held(w.own)
	w.Expect(err).NotTo(HaveOccurred())
	w.observer.impede(kubernetesAway)
	begin()
	w.pass(lasting)
	back := end()
	w.observer.relieve(kubernetesAway)
	w.changed(seconds(lasting), before, back)
	// The other namespace has the new client secret, too, and its grant again.
	secret := harness.CredentialsSecret(w.namespaces[1], "package-0", w.standIn, w.packages[0])
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"stringData":{"client_secret":"canary-client-secret-%d"}}`, w.secrets))
	w.Expect(admin.Patch(w.ctx, secret, patch)).To(Succeed())
	w.grant()
	w.settled()
}

func (w *recovery) told(fault, times string) {
	w.t.Helper()
	for _, text := range w.late {
		w.t.Error(text)
	}
	w.observer.mu.Lock()
	asked := len(w.observer.asked)
	w.observer.mu.Unlock()
	// One at first, and one for each new client secret; that of the other namespace has the same identity by then.
	allowed := w.secrets + w.starts()
	if asked > allowed {
		w.t.Errorf("%d token requests, allowed are %d", asked, allowed)
	}
	table.add(w.t, row{
		fault: fault, times: times, outage: "–", gap: "–", asked: asked, allowed: allowed,
		remark: "changed credentials and a revocation were seen after " + strings.Join(w.took, "; "), broken: w.t.Failed(),
	})
}

var outages = []time.Duration{time.Second, 10 * time.Second, time.Minute}

func TestRecoveryAfterAnAPIServerThatRefusedConnections(t *testing.T) {
	t.Parallel()
	road, config := newRoad(t, operator)
	w := newRecovery(t, unhurried, config)
	for _, lasting := range outages {
		w.outage(lasting, road.close, func() time.Time {
			w.Expect(w.change()).To(Succeed())
			road.open()
			return time.Now()
		})
	}
	w.told("API server's port closed", "1 s, 10 s, 60 s")
}

func TestRecoveryAfterConnectionsToTheAPIServerThatFellSilent(t *testing.T) {
	t.Parallel()
	road, config := newRoad(t, operator)
	w := newRecovery(t, unhurried, config)
	for _, lasting := range outages {
		w.outage(lasting, func() { road.setSilent(true) }, func() time.Time {
			w.Expect(w.change()).To(Succeed())
			road.setSilent(false)
			return time.Now()
		})
	}
	w.told("connections to the API server silent, and for ever; new ones well again", "1 s, 10 s, 60 s")
}

func TestRecoveryAfterARestartOfTheAPIServer(t *testing.T) {
	shape := unhurried
	shape.everywhere = true
	for _, lasting := range outages {
		t.Run(lasting.String(), func(t *testing.T) {
			w := newRecovery(t, shape, operator)
			w.outage(lasting, cluster.StopAPIServer, func() time.Time {
				started := make(chan error, 1)
				go func() { started <- cluster.StartAPIServer(w.ctx) }()
				w.Eventually(w.change).Should(Succeed())
				back := time.Now()
				w.Expect(<-started).To(Succeed())
				return back
			})
			w.told("API server killed and started again", seconds(lasting))
		})
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%g s", d.Seconds()) }
