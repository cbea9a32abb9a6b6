package localcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is one program of the control plane that was started here.
type process struct {
	name    string
	logFile string
	pid     int
	handle  *os.Process
	exited  chan struct{} // closed once the program has ended and was waited for
	err     error         // how it ended; read after exited is closed
}

// startProcess starts the program with its output appended to logFile.
func startProcess(name, path, logFile string, args []string) (*process, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...) //nolint:noctx // it ends by stop, in its turn
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()

	p := &process{name: name, logFile: logFile, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer log.Close()
		// Linux ends the child with the thread that started it, so this thread
		// belongs to this goroutine for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()

		err := cmd.Start()
		if err == nil {
			p.pid, p.handle = cmd.Process.Pid, cmd.Process
		}
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return p, nil
}

// waitReady polls until ready returns nil. It gives up as soon as the program
// has ended, and then says what its log said last.
func (p *process) waitReady(ctx context.Context, ready func(context.Context) error) error {
	var last error
	err := poll(ctx, 50*time.Millisecond, func() (bool, error) {
		select {
		case <-p.exited:
			return false, fmt.Errorf("it ended by itself: %w", p.err)
		default:
		}
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		last = ready(attempt)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%s did not become ready: %w\nthe end of %s:\n%s", p.name, errors.Join(err, last), p.logFile, lastLines(p.logFile, 15))
	}
	return nil
}

// stop asks the program to end, insists after the grace period, and returns once
// it is gone.
func (p *process) stop(grace time.Duration) {
	if p == nil {
		return
	}
	_ = p.handle.Signal(syscall.SIGTERM) // fails only if it has ended already
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		_ = p.handle.Kill()
		<-p.exited
	}
}

// poll calls done at once and then at each interval, until it returns true or
// an error, or ctx ends.
func poll(ctx context.Context, interval time.Duration, done func() (bool, error)) error {
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

func lastLines(file string, n int) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
