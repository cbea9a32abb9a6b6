package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/rest"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
)

// Working is what the operator logs when it begins to reconcile SFMCTokens.
const Working = `"Starting workers","controller":"sfmctoken"`

// Program builds the operator's binary, once, into a folder that RemoveProgram removes.
var Program = sync.OnceValues(func() (string, error) {
	path := programPath()
	build := exec.Command("go", "build", "-o", path, "./cmd") //nolint:gosec // go itself, with a path made here
	build.Dir = Path()
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the operator: %w\n%s", err, out)
	}
	return path, nil
})

func programPath() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("sfmctoken-operator-under-test-%d", os.Getpid()))
}

// RemoveProgram removes what Program built, if it did.
func RemoveProgram() { _ = os.Remove(programPath()) }

// ProcessOptions say how the operator's binary is run.
type ProcessOptions struct {
	// Binary is the operator's, by default what Program builds.
	Binary string
	// Config is the identity that the operator has in the cluster.
	Config *rest.Config
	// Dir is where its files are put: a kubeconfig and a CA.
	Dir string
	// AuthHosts are allowed as authentication hosts, CA signed their certificate.
	AuthHosts []string
	CA        []byte
	// Flags come after those that the above needs.
	Flags []string
	// Log receives what it prints.
	Log *Log
}

// StartProcess starts the operator's binary.
func StartProcess(options ProcessOptions) (*Process, error) {
	path, err := options.Binary, error(nil)
	if path == "" {
		path, err = Program()
	}
	if err != nil {
		return nil, err
	}
	kubeconfig, ca := filepath.Join(options.Dir, "kubeconfig"), filepath.Join(options.Dir, "ca.pem")
	if err := errors.Join(localcluster.WriteKubeconfig(options.Config, kubeconfig), os.WriteFile(ca, options.CA, 0o600)); err != nil {
		return nil, err
	}
	args := []string{"--kubeconfig", kubeconfig, "--ca-file", ca, "--health-probe-bind-address", "0"}
	for _, host := range options.AuthHosts {
		args = append(args, "--allow-auth-host", host)
	}
	cmd := exec.Command(path, append(args, options.Flags...)...) //nolint:gosec,noctx // built here; Kill or Terminate ends it
	cmd.Stdout, cmd.Stderr = options.Log, options.Log
	return StartCommand(cmd)
}

// Process is a program that was started here. It ends with this process, even if that is killed.
type Process struct {
	handle *os.Process
	exited chan struct{}
	state  *os.ProcessState // read after exited is closed
}

// StartCommand starts a program.
func StartCommand(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = childAttributes()
	p := &Process{exited: make(chan struct{})}
	started := make(chan error)
	go p.run(cmd, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// run keeps its thread for as long as the child lives: Linux ends the child with the thread that started it.
func (p *Process) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	if err == nil {
		p.handle = cmd.Process
	}
	started <- err
	if err == nil {
		_ = cmd.Wait() // the state says how it ended
		p.state = cmd.ProcessState
		close(p.exited)
	}
}

// PID is the process's number.
func (p *Process) PID() int { return p.handle.Pid }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Kill ends the process at once, with SIGKILL, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.handle.Kill() // fails only if it has ended already
	<-p.exited
}

// Terminate asks the process to end, as kubelet does, and returns its exit code. It is killed when ctx ends.
func (p *Process) Terminate(ctx context.Context) int {
	_ = p.handle.Signal(syscall.SIGTERM) // fails only if it has ended already
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.Kill()
	}
	return p.state.ExitCode()
}

// Supervisor runs the operator's binary and starts it again when it ends, as kubelet does.
type Supervisor struct {
	options ProcessOptions
	// onChange is told whether the operator reconciles: true when it begins to, false when it has ended.
	onChange func(working bool)

	mu       sync.Mutex
	running  *Process
	starts   int
	stopping chan struct{} // closed while mu is held

	stopped chan struct{}
	err     error // read after stopped is closed
}

var errStopping = errors.New("the operator is being stopped")

// The first restart is immediate, as kubelet's is; later ones wait, longer each time while none lives long. kubelet
// waits ten times as long.
const (
	restartFirst, restartMost = time.Second, 8 * time.Second
	longLife                  = 10 * time.Second
)

// Supervise starts the operator's binary and keeps it running until Stop.
func Supervise(options ProcessOptions, onChange func(working bool)) (*Supervisor, error) {
	s := &Supervisor{options: options, onChange: onChange, stopping: make(chan struct{}), stopped: make(chan struct{})}
	options.Log.notify(Working, func() { onChange(true) })
	if err := s.start(); err != nil {
		return nil, err
	}
	go s.supervise()
	return s, nil
}

func (s *Supervisor) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.stopping:
		return errStopping
	default:
	}
	process, err := StartProcess(s.options)
	if err != nil {
		return err
	}
	s.running = process
	s.starts++
	return nil
}

func (s *Supervisor) supervise() {
	defer close(s.stopped)
	var delay time.Duration
	for {
		began := time.Now()
		<-s.process().exited
		s.onChange(false)
		delay = nextRestart(delay, time.Since(began), s.process().state)
		if !s.pause(delay) {
			return
		}
		if err := s.start(); err != nil {
			s.err = err
			return
		}
	}
}

// nextRestart is at once after a kill or a long life, else longer than the last time.
func nextRestart(last, lived time.Duration, ended *os.ProcessState) time.Duration {
	switch {
	case !ended.Exited() || lived > longLife:
		return 0
	case last == 0:
		return restartFirst
	default:
		return min(2*last, restartMost)
	}
}

// pause returns false when the supervisor is being stopped.
func (s *Supervisor) pause(delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-s.stopping:
		return false
	case <-timer.C:
		return true
	}
}

func (s *Supervisor) process() *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

// Kill ends the running process with SIGKILL; it is started again at once.
func (s *Supervisor) Kill() { s.process().Kill() }

// Starts is how often the operator was started.
func (s *Supervisor) Starts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.starts
}

// Stop ends the operator in order, or by force when ctx ends, and returns why it could not be kept running, if so.
func (s *Supervisor) Stop(ctx context.Context) error {
	s.mu.Lock()
	close(s.stopping) // from now on, none is started
	last := s.running
	s.mu.Unlock()
	last.Terminate(ctx)
	<-s.stopped
	if errors.Is(s.err, errStopping) {
		return nil
	}
	return s.err
}
