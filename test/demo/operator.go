package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// stopGrace is how long the operator may take to end. It takes longer only if a token request gets no answer.
const stopGrace = 20 * time.Second

// operator is the operator's binary running as a child process.
type operator struct {
	command  *exec.Cmd
	logFile  string
	stopping atomic.Bool
	exited   chan struct{}
	err      error // how it ended; read after exited is closed
}

func buildOperator(ctx context.Context, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd") //nolint:gosec // into the demo's own folder
	// An interrupt lets the go command end its compilers; a kill would not.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the operator: %w\n%s", err, out)
	}
	return nil
}

// startOperator starts the operator. If it ends before it is stopped, died is told why.
func startOperator(binary string, args []string, kubeconfig, logFile string, died func(error)) (*operator, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // in the demo's own folder
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	o := &operator{
		command: exec.Command(binary, args...), //nolint:gosec,noctx // built by the demo; stop ends it, more gently than a context
		logFile: logFile,
		exited:  make(chan struct{}),
	}
	o.command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	o.command.Stdout, o.command.Stderr = log, log
	// Ctrl-C in a terminal must not reach it before its turn in the clean-up. Should the demo be killed, the control
	// plane dies with it, and then the operator ends by itself because it can't renew its Lease.
	o.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := o.command.Start(); err != nil {
		return nil, fmt.Errorf("start the operator: %w", err)
	}
	go func() {
		o.err = o.command.Wait()
		close(o.exited)
		if !o.stopping.Load() {
			died(fmt.Errorf("the operator ended by itself: %s", o.command.ProcessState))
		}
	}()
	return o, nil
}

func (o *operator) pid() int { return o.command.Process.Pid }

// stop asks the operator to end and waits until it is gone. Any exit code but 0 is an error.
func (o *operator) stop() error {
	o.stopping.Store(true)
	_ = o.command.Process.Signal(syscall.SIGTERM) // fails only if it has ended already
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-o.exited:
	case <-timer.C:
		_ = o.command.Process.Kill()
		<-o.exited
		return fmt.Errorf("the operator did not end within %s of SIGTERM and was killed", stopGrace)
	}
	if o.err != nil {
		return fmt.Errorf("the operator's end: %w", o.err)
	}
	return nil
}

func (o *operator) lastLogLines(n int) string {
	log, err := os.ReadFile(o.logFile)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// awaitOK asks until the answer is 200 OK, and returns its body.
func awaitOK(ctx context.Context, url string) (string, error) {
	var body string
	err := poll(ctx, time.Minute, func() error {
		var err error
		body, err = get(ctx, http.DefaultClient, url, "")
		return err
	})
	return body, err
}

// get returns the body of an answer with status 200; any other answer is an error.
func get(ctx context.Context, client *http.Client, url, token string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return "", fmt.Errorf("GET %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %s: %s", url, response.Status, body)
	}
	return string(body), nil
}

// poll calls done at once and then several times a second until it returns nil. It gives up when ctx ends or the time
// is over, with done's last error.
func poll(ctx context.Context, atMost time.Duration, done func() error) error {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, after %s", err, atMost)
		case <-ticker.C:
		}
	}
}
