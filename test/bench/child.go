package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// stopTimeout is more than the 45 s that the operator may take to finish a write.
const stopTimeout = time.Minute

// child is a program that was started here, with what it is told and what it says.
type child struct {
	*harness.Process
	name    string
	stdin   io.WriteCloser
	stdout  *bufio.Reader
	logFile string
}

// startChild starts a program whose stderr goes to a log file.
func startChild(name, path, logFile string, env, args []string) (*child, error) {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // a temporary file of ours
	if err != nil {
		return nil, err
	}
	defer log.Close()                  // the child has it then
	cmd := exec.Command(path, args...) //nolint:gosec,noctx // a program built here; stop ends it in order
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = log
	stdout, outErr := cmd.StdoutPipe()
	stdin, inErr := cmd.StdinPipe()
	if err := errors.Join(outErr, inErr); err != nil {
		return nil, err
	}
	process, err := harness.StartCommand(cmd)
	if err != nil {
		return nil, err
	}
	return &child{Process: process, name: name, stdin: stdin, stdout: bufio.NewReader(stdout), logFile: logFile}, nil
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
	_ = c.stdin.Close() // which is the floor's sign
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if code := c.Terminate(ctx); code != 0 {
		return fmt.Errorf("%s ended badly, with exit code %d:\n%s", c.name, code, c.lastLog())
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
