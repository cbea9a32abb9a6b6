package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// population is how many SFMCTokens there are, of how many identities, in how many namespaces.
type population struct{ tokens, identities, namespaces int }

// populations show how cost grows, and how it does when ten thousand SFMCTokens share.
var populations = []population{
	{100, 100, namespaces}, {1000, 1000, namespaces}, {10_000, 10_000, namespaces}, {10_000, 500, 200},
}

func (p population) String() string {
	return fmt.Sprintf("%d SFMCTokens of %d identities in %d namespaces", p.tokens, p.identities, p.namespaces)
}

func (p population) names() []string {
	var names []string
	for i := range p.namespaces {
		names = append(names, fmt.Sprintf("scale-%d-%d-%d", p.tokens, p.identities, i))
	}
	return names
}

// life is one that the API server of two cores can bear: a refresh about every 11 ms.
func (p population) life() time.Duration {
	return max(20*time.Second, time.Duration(p.tokens)*16*time.Millisecond)
}

// cost is a figure of a population: how much, and of which unit.
type cost struct {
	name, format string
	value        float64
	grows        bool // whether it says something to compare it with a smaller population's
}

// scaled measures one population.
type scaled struct {
	*bench
	population
	keys            []client.ObjectKey
	leader, standby *child
	metrics, pprof  string // the leader's addresses
	costs           []cost
}

// measureScale prints what each population costs, beside each other.
func (b *bench) measureScale(ctx context.Context) error {
	out := os.Stdout
	machine, err := b.describeMachine(ctx)
	if err != nil {
		return err
	}
	var all [][]cost
	for _, p := range populations {
		if p.tokens > b.scale {
			continue
		}
		say("%s", p)
		s := &scaled{bench: b, population: p}
		if err := s.measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		all = append(all, s.costs)
	}
	fmt.Fprintf(out, "%s\n\n", machine)
	columns := []string{""}
	for _, p := range populations[:len(all)] {
		columns = append(columns, p.String())
	}
	printHead(out, columns)
	for i, first := range all[0] {
		cells := []string{first.name}
		for j, costs := range all {
			cell := fmt.Sprintf(first.format, costs[i].value)
			if j > 0 && first.grows && all[j-1][i].value > 0 && populations[j].identities > populations[j-1].identities {
				cell += fmt.Sprintf(" (×%.1f)", costs[i].value/all[j-1][i].value)
			}
			cells = append(cells, cell)
		}
		fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
	}
	return nil
}

func (s *scaled) add(name, format string, value float64, grows bool) {
	say("%s: "+format, name, value)
	s.costs = append(s.costs, cost{name, format, value, grows})
}

func (s *scaled) measure(ctx context.Context) (err error) {
	defer func() {
		for _, replica := range []*child{s.standby, s.leader} {
			if replica != nil {
				err = errors.Join(err, replica.stop())
			}
		}
		err = errors.Join(err, s.deleteTokens(ctx, s.names()))
	}()
	if err := s.populate(ctx); err != nil {
		return err
	}
	if err := s.create(ctx); err != nil {
		return err
	}
	expired, err := s.watchExpiry(ctx)
	if err != nil {
		return err
	}
	if err := s.refresh(ctx); err != nil {
		return err
	}
	if err := s.loseLeader(ctx); err != nil {
		return err
	}
	if err := s.restart(ctx); err != nil {
		return err
	}
	longest := expired()
	s.add("longest time with an expired token, s", "%.1f", longest.Seconds(), false)
	s.promise(longest == 0, "no expired token: one was for %s", longest)
	return nil
}

// populate makes the SFMCTokens. Those of one identity are in different namespaces.
func (s *scaled) populate(ctx context.Context) error {
	names := s.names()
	if err := s.createNamespaces(ctx, names); err != nil {
		return err
	}
	for i := range s.tokens {
		s.keys = append(s.keys, client.ObjectKey{Namespace: names[i%len(names)], Name: fmt.Sprintf("token-%d", i)})
	}
	return inParallel(ctx, s.tokens, func(ctx context.Context, i int) error {
		account := accountID(i * s.identities / s.tokens)
		return s.admin.Create(ctx, harness.Token(s.keys[i].Namespace, s.keys[i].Name, credentialsName, account))
	})
}

// startReplica starts a replica that works while it holds the Lease.
func (s *scaled) startReplica() (*child, error) {
	var addresses [2]string
	for i := range addresses {
		var err error
		if addresses[i], err = harness.FreeAddress(); err != nil {
			return nil, err
		}
	}
	if s.leader == nil {
		s.metrics, s.pprof = addresses[0], addresses[1]
	}
	return s.startOperator(append([]string{
		"--leader-elect", "--leader-election-namespace=" + harness.SystemNamespace,
		"--metrics-bind-address=" + addresses[0], "--metrics-secure=false", "--pprof-bind-address=" + addresses[1],
	}, unpaced...)...)
}

// create measures the first tokens of all.
func (s *scaled) create(ctx context.Context) error {
	m, err := s.startMeter(ctx, nil)
	if err != nil {
		return err
	}
	tokens, err := s.watchTokens(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if s.leader, err = s.startReplica(); err != nil {
		return err
	}
	ended, err := tokens.until(ctx, s.leader, s.tokens, holdsLong)
	if err != nil {
		return err
	}
	r, err := m.read(ctx, s.leader, ended)
	if err != nil {
		return err
	}
	s.add("until all were ready, s", "%.1f", ended.Sub(began).Seconds(), true)
	s.each("a new token", r, s.tokens)
	s.promise(r.requests == s.identities, "one token request for each of %d identities: %d", s.identities, r.requests)
	return nil
}

// each adds what one of the tokens or refreshes of a run cost.
func (s *scaled) each(what string, r row, n int) {
	all := r.calls.reads + r.calls.createSecrets + r.calls.updateSecrets + r.calls.patchStatuses + r.calls.events
	s.add(what+": requests to Kubernetes", "%.3f", float64(all)/float64(n), true)
	s.add(what+": CPU ms", "%.2f", float64(r.usage.cpu.Microseconds())/1000/float64(n), true)
	s.add(what+": API server's CPU ms", "%.2f", float64(r.serverCPU.Microseconds())/1000/float64(n), true)
}

// refresh measures three lives, into which the tokens come spread over time, as they are where people made them.
func (s *scaled) refresh(ctx context.Context) (err error) {
	if s.standby, err = s.startReplica(); err != nil {
		return err
	}
	if err := errors.Join(waitIdle(ctx, s.standby), waitIdle(ctx, s.leader)); err != nil {
		return err
	}
	m, err := s.startMeter(ctx, s.leader)
	if err != nil {
		return err
	}
	if err := s.standIn.setLife(ctx, s.life()); err != nil {
		return err
	}
	sharers := s.tokens / s.identities
	turn := time.NewTicker(s.life() * 2 / 3 / time.Duration(s.identities))
	defer turn.Stop()
	for i := 0; i < s.tokens; i += sharers {
		if err := s.requestRefresh(ctx, s.keys[i], "spread"); err != nil {
			return err
		}
		<-turn.C
	}
	profiled := s.during(ctx, s.bench, s.pprof, fmt.Sprint("refresh-", s.tokens), 20*time.Second)
	select {
	case <-time.After(3 * s.life()):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := profiled(); err != nil {
		return err
	}
	most, mean, err := s.standIn.busiestSecond(ctx)
	if err != nil {
		return err
	}
	size, took, err := scrape(ctx, s.metrics)
	if err != nil {
		return err
	}
	if err := errors.Join(s.standIn.setLife(ctx, longLife), s.awaitTokens(ctx, s.leader, s.tokens, holdsLong)); err != nil {
		return err
	}
	r, err := m.read(ctx, s.leader, time.Now())
	if err != nil {
		return err
	}
	s.each("a refresh", r, r.calls.updateSecrets)
	s.promise(r.calls.patchStatuses == r.calls.updateSecrets && r.calls.reads <= r.calls.updateSecrets && r.calls.events == 0,
		"two writes and at most one read for each of %d refreshes: %+v", r.calls.updateSecrets, r.calls)
	s.add("most token requests in a second", "%.0f", float64(most), false)
	s.add("token requests in a second, in the mean", "%.1f", mean, false)
	s.add("leader's memory at peak, MiB", "%.0f", float64(r.usage.peak)/1024, true)
	standby, err := readUsage(s.standby.PID())
	if err != nil {
		return err
	}
	s.add("standby's memory at peak, MiB", "%.0f", float64(standby.peak)/1024, true)
	s.add("a scrape of the metrics, KiB", "%.0f", float64(size)/1024, true)
	s.add("a scrape of the metrics, ms", "%.0f", float64(took.Microseconds())/1000, true)
	return nil
}

// scrape reads the metrics as Prometheus does.
func scrape(ctx context.Context, address string) (size int, took time.Duration, err error) {
	began := time.Now()
	text, err := fetch(ctx, "http://"+address+"/metrics")
	return len(text), time.Since(began), err
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return io.ReadAll(response.Body)
}

// loseLeader kills the leader. The standby has all in its caches and waits for the Lease to run out.
func (s *scaled) loseLeader(ctx context.Context) error {
	s.leader.Kill()
	began := time.Now()
	served, err := s.changeServed(ctx, s.standby, "leader-lost")
	if err != nil {
		return err
	}
	s.leader, s.standby = s.standby, nil
	s.add("leader killed, until a change was served, s", "%.1f", served.Sub(began).Seconds(), false)
	return nil
}

// restart measures a start without a standby, when the one before it has given back the Lease.
func (s *scaled) restart(ctx context.Context) (err error) {
	last := s.leader
	s.leader = nil
	if err := errors.Join(waitIdle(ctx, last), last.stop()); err != nil {
		return err
	}
	before, err := s.readCalls(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if s.leader, err = s.startReplica(); err != nil {
		return err
	}
	served, err := s.changeServed(ctx, s.leader, "restarted")
	if err != nil {
		return err
	}
	s.add("restart, until a change was served, s", "%.1f", served.Sub(began).Seconds(), true)
	if err := waitIdle(ctx, s.leader); err != nil {
		return err
	}
	after, err := s.settledCalls(ctx)
	if err != nil {
		return err
	}
	used, err := readUsage(s.leader.PID())
	s.add("restart, memory at peak, MiB", "%.0f", float64(used.peak)/1024, true)
	cost := after.minus(before)
	s.promise(cost == calls{updateSecrets: 1, patchStatuses: 1}, "nothing but the two writes of one change at a restart: %+v", cost)
	return err
}

// changeServed changes an SFMCToken in a way that needs no new token, and returns when its status said that it was done.
func (s *scaled) changeServed(ctx context.Context, by *child, value string) (time.Time, error) {
	tokens, err := s.watchTokens(ctx)
	if err != nil {
		return time.Time{}, err
	}
	changed, err := s.changeTemplate(ctx, s.keys[0], value)
	if err != nil {
		return time.Time{}, err
	}
	return tokens.until(ctx, by, 1, func(token *v1alpha1.SFMCToken) bool {
		return token.UID == changed.UID && token.Status.ObservedGeneration == changed.Generation
	})
}

// watchExpiry looks at all target Secrets until it is asked what the longest time was in which one held a token past the
// expires_at that is written in it. Marketing Cloud would have taken it for two minutes more.
func (s *scaled) watchExpiry(ctx context.Context) (longest func() time.Duration, err error) {
	var secrets corev1.SecretList
	events, err := s.listAndWatch(ctx, &secrets, client.MatchingLabels{target.ManagedByLabel: target.ManagedByValue})
	if err != nil {
		return nil, err
	}
	var most time.Duration
	ends := map[types.UID]time.Time{}
	see := func(secret *corev1.Secret) {
		end, err := time.Parse(time.RFC3339, string(secret.Data["expires_at"]))
		if old, found := ends[secret.UID]; found {
			most = max(most, time.Since(old))
		}
		if err == nil {
			ends[secret.UID] = end
		}
	}
	for i := range secrets.Items {
		see(&secrets.Items[i])
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		for event := range events.ResultChan() {
			if secret, ok := event.Object.(*corev1.Secret); ok {
				see(secret)
			}
		}
	})
	return func() time.Duration {
		events.Stop()
		watching.Wait()
		for _, end := range ends {
			most = max(most, time.Since(end))
		}
		return most
	}, nil
}

// busiestSecond is the most token requests that arrived in a second, among the latest that the stand-in remembers, and
// how many it was in the mean.
func (s *standIn) busiestSecond(ctx context.Context) (most int, mean float64, err error) {
	var requests []struct{ Time time.Time }
	if err := s.control(ctx, http.MethodGet, "requests", nil, &requests); err != nil || len(requests) == 0 {
		return 0, 0, err
	}
	seconds := map[int64]int{}
	for _, request := range requests {
		seconds[request.Time.Unix()]++
		most = max(most, seconds[request.Time.Unix()])
	}
	lasted := requests[len(requests)-1].Time.Sub(requests[0].Time)
	return most, float64(len(requests)-1) / lasted.Seconds(), nil
}
