package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
)

// calls are requests that the API server counted by what they do to the kinds that matter, and events.
type calls struct {
	reads         int // GET of a Secret, an SFMCToken or an SFMCAccessGrant
	createSecrets int
	updateSecrets int // PUT or PATCH
	patchStatuses int // of SFMCTokens
	patchGrants   int // their statuses
	events        int
	refused       int // of all these, answered with an error
}

func (c calls) minus(before calls) calls {
	return calls{
		reads:         c.reads - before.reads,
		createSecrets: c.createSecrets - before.createSecrets,
		updateSecrets: c.updateSecrets - before.updateSecrets,
		patchStatuses: c.patchStatuses - before.patchStatuses,
		patchGrants:   c.patchGrants - before.patchGrants,
		events:        c.events - before.events,
		refused:       c.refused - before.refused,
	}
}

// counted are the samples of apiserver_request_total to add up, by resource, subresource and verb. Nobody else sends
// these while something is measured: the administrator creates, changes, lists and watches, which is not here.
var counted = map[string]func(*calls) *int{
	"secrets//GET":                  func(c *calls) *int { return &c.reads },
	"sfmctokens//GET":               func(c *calls) *int { return &c.reads },
	"sfmctokens/status/GET":         func(c *calls) *int { return &c.reads },
	"secrets//POST":                 func(c *calls) *int { return &c.createSecrets },
	"secrets//PUT":                  func(c *calls) *int { return &c.updateSecrets },
	"secrets//PATCH":                func(c *calls) *int { return &c.updateSecrets },
	"secrets//APPLY":                func(c *calls) *int { return &c.updateSecrets },
	"sfmctokens/status/PATCH":       func(c *calls) *int { return &c.patchStatuses },
	"sfmctokens/status/PUT":         func(c *calls) *int { return &c.patchStatuses },
	"sfmcaccessgrants//GET":         func(c *calls) *int { return &c.reads },
	"sfmcaccessgrants/status/PATCH": func(c *calls) *int { return &c.patchGrants },
	"events//POST":                  func(c *calls) *int { return &c.events },
	"events//PATCH":                 func(c *calls) *int { return &c.events },
}

var label = regexp.MustCompile(`(\w+)="([^"]*)"`)

// readCalls reads the API server's own metrics.
func (b *bench) readCalls(ctx context.Context) (calls, error) {
	clientset, err := kubernetes.NewForConfig(b.cluster.Config())
	if err != nil {
		return calls{}, err
	}
	metrics, err := clientset.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return calls{}, fmt.Errorf("read the API server's metrics: %w", err)
	}
	return sumCalls(metrics)
}

func sumCalls(metrics []byte) (calls, error) {
	var sum calls
	lines := bufio.NewScanner(bytes.NewReader(metrics))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		labels, found := strings.CutPrefix(lines.Text(), "apiserver_request_total{")
		if !found {
			continue
		}
		labels, value, _ := strings.Cut(labels, "} ")
		of := map[string]string{}
		for _, match := range label.FindAllStringSubmatch(labels, -1) {
			of[match[1]] = match[2]
		}
		field := counted[of["resource"]+"/"+of["subresource"]+"/"+of["verb"]]
		if field == nil || of["resource"] == "events" && of["group"] != "events.k8s.io" {
			continue
		}
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return calls{}, fmt.Errorf("read the API server's metrics: %w", err)
		}
		*field(&sum) += int(number)
		if of["code"] >= "400" {
			sum.refused += int(number)
		}
	}
	return sum, lines.Err()
}

// settledCalls waits until the API server has counted nothing new for a while.
func (b *bench) settledCalls(ctx context.Context) (now calls, err error) {
	last := calls{reads: -1}
	err = poll(ctx, 250*time.Millisecond, func() (bool, error) {
		if now, err = b.readCalls(ctx); err != nil {
			return false, err
		}
		same := now == last
		last = now
		return same, nil
	})
	return now, err
}

// usage is what a process has used since it was started.
type usage struct {
	cpu  time.Duration
	peak int // of resident memory, in KiB
}

// clockTick is the unit of /proc/PID/stat: Linux fixes it for programs at a hundredth of a second.
const clockTick = 10 * time.Millisecond

func readUsage(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, fmt.Errorf("CPU time and memory are read from /proc, which only Linux has: %w", err)
	}
	// The second field is the program's name in parentheses and can hold spaces; utime and stime are the 14th and 15th.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var used usage
	for _, field := range fields[11:13] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			return usage{}, err
		}
		used.cpu += time.Duration(ticks) * clockTick
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return usage{}, err
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	used.peak, err = strconv.Atoi(strings.Fields(peak + " ?")[0])
	return used, err
}

// waitIdle waits until a process does nothing any more: it has used at most one tick of CPU for a second.
func waitIdle(ctx context.Context, c *child) error {
	var busy time.Duration // its CPU time when it was last seen working
	var since time.Time
	err := poll(ctx, 100*time.Millisecond, func() (bool, error) {
		now, err := readUsage(c.PID())
		if since.IsZero() || now.cpu-busy > clockTick {
			busy, since = now.cpu, time.Now()
		}
		return time.Since(since) >= time.Second, err
	})
	if err != nil {
		return fmt.Errorf("wait until %s is idle: %w\n%s", c.name, err, c.lastLog())
	}
	return nil
}

// patience is how long anything may take before it counts as hanging.
const patience = 5 * time.Minute

// poll calls done at each interval until it returns true or an error, or patience ends.
func poll(ctx context.Context, interval time.Duration, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
