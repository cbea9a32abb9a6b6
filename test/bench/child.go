package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// stopTimeout is more than the 45 s that the operator may take to finish a write.
const stopTimeout = time.Minute

// child is a program that was started here. It ends with this process, even if that is killed.
type child struct {
	name    string
	pid     int
	process *os.Process
	stdin   io.WriteCloser
	stdout  *bufio.Reader
	logFile string
	exited  chan struct{}
	err     error // how it ended; read after exited is closed
}

// startChild starts a program whose stderr goes to a log file.
func startChild(name, path, logFile string, env, args []string) (*child, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // a temporary file of ours
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...) //nolint:gosec,noctx // a program built here; stop ends it in order
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = log
	cmd.SysProcAttr = childAttributes()
	c := &child{name: name, logFile: logFile, exited: make(chan struct{})}
	stdout, outErr := cmd.StdoutPipe()
	stdin, inErr := cmd.StdinPipe()
	if err := errors.Join(outErr, inErr); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	c.stdin, c.stdout = stdin, bufio.NewReader(stdout)
	started := make(chan error)
	go func() {
		defer log.Close()
		// Linux ends the child with the thread that started it, so this thread is kept for as long as it lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			c.process, c.pid = cmd.Process, cmd.Process.Pid
		}
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// readLine waits for the child's next line on stdout.
func (c *child) readLine(ctx context.Context) (string, error) {
	type answer struct {
		line string
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		line, err := c.stdout.ReadString('\n')
		answered <- answer{strings.TrimSpace(line), err}
	}()
	select {
	case got := <-answered:
		if got.err != nil {
			return "", fmt.Errorf("%s: %w\n%s", c.name, got.err, c.lastLog())
		}
		return got.line, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// stop ends the child as Kubernetes ends a pod. It is an error if it had ended before, or doesn't end well.
func (c *child) stop() error {
	_ = c.stdin.Close()                   // which is the floor's sign
	_ = c.process.Signal(syscall.SIGTERM) // fails only if it has ended already, which is reported below
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-c.exited:
	case <-timer.C:
		_ = c.process.Kill()
		<-c.exited
	}
	if c.err != nil {
		return fmt.Errorf("%s ended badly: %w\n%s", c.name, c.err, c.lastLog())
	}
	return nil
}

func (c *child) lastLog() string {
	lines, err := lastLines(c.logFile, 10)
	if err != nil {
		return err.Error()
	}
	return lines
}

func lastLines(file string, n int) (string, error) {
	content, err := os.ReadFile(file) //nolint:gosec // a log file of ours
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n"), nil
}
