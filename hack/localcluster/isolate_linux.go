package localcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// isolation is handed from one stage of Isolate to the next: which stage it is,
// and the process ids of those before it, as the machine knows them.
const isolation = "LOCALCLUSTER_ISOLATION"

// isolated is the cgroup that the node's containers go into, once Isolate has
// returned, and entrance the process id of the namespaces' first process.
var isolated, entrance string

// Isolate moves the calling program into namespaces of its own, as a node needs:
// of processes, mounts and the network. It belongs at the beginning of main or
// TestMain, since it runs the program a second time, with the same arguments. It
// returns in that second process alone; the first waits for it and exits with
// its code.
//
// What a node leaves behind is a long list: containers that outlive their
// runtime, mounts, a bridge, interfaces. Here the kernel takes it all away when
// the program ends, however it ends. And the node's network has no way out: there
// is a loopback interface and nothing else.
//
// So prepare, which may be nil, runs before, with the network of the machine. It
// is where programs are built and packages installed.
func Isolate(prepare func(context.Context) error) error {
	stage := strings.Fields(os.Getenv(isolation))
	if err := os.Unsetenv(isolation); err != nil {
		return err
	}
	switch len(stage) {
	case 1:
		return beInit(stage[0])
	case 2:
		isolated, entrance = cgroupPrefix+stage[0], stage[1]
		// A mount of the namespaces' own, so temporary files go with them too.
		return os.Setenv("TMPDIR", "/run")
	default:
		return isolate(prepare)
	}
}

// isolate is the first stage: it waits for the others.
func isolate(prepare func(context.Context) error) error {
	if os.Geteuid() != 0 {
		return errors.New("a node needs root: it makes namespaces, mounts and cgroups. Run this as root, for example in a container or virtual machine of its own")
	}
	if prepare != nil {
		ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err := prepare(ctx)
		cancel()
		if err != nil {
			return err
		}
	}
	removeStaleCgroups()

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	// Linux ends the child with the thread that started it, so this one stays.
	runtime.LockOSThread()
	child := again(strconv.Itoa(os.Getpid()))
	// A process group of its own, so that Ctrl-C arrives once, from here.
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		Setpgid:    true,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := child.Start(); err != nil {
		return fmt.Errorf("making namespaces for a node, which takes root with CAP_SYS_ADMIN: %w", err)
	}
	go forward(signals, child.Process.Pid)
	err := child.Wait()
	removeStaleCgroups()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		return err
	}
	if child.ProcessState.ExitCode() < 0 {
		return fmt.Errorf("the isolated program was ended: %w", err)
	}
	os.Exit(child.ProcessState.ExitCode())
	return nil
}

// beInit is process 1 of the namespaces. It makes what programs expect to find,
// runs the program itself, and waits for every orphan, such as the runtimes of
// containers, until that has ended. With it, the kernel ends all others.
func beInit(owner string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	self, err := os.Readlink("/proc/self") // still the machine's /proc
	if err != nil {
		return err
	}
	if err := furnish(); err != nil {
		return err
	}
	child := again(owner, self)
	if err := child.Start(); err != nil {
		return err
	}
	go forward(signals, child.Process.Pid)
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("waiting for the isolated program: %w", err)
		case pid == child.Process.Pid:
			os.Exit(exitCode(status))
		}
	}
}

// furnish makes the new namespaces usable. Mounts are hidden from the machine,
// and seen by the containers that ask for them, as on a node that owns its
// machine. The folders are those in which programs of a node leave files that no
// flag can move.
func furnish() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("sharing mounts with containers: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	for _, dir := range []string{"/run", "/var/log", "/var/lib/kubelet", "/var/lib/cni"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mounting %s: %w", dir, err)
		}
	}
	return command("ip", "link", "set", "lo", "up")
}

func again(stage ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // signals end it, in their turn
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), isolation+"="+strings.Join(stage, " "))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

func forward(signals <-chan os.Signal, pid int) {
	for received := range signals {
		if number, ok := received.(syscall.Signal); ok {
			_ = syscall.Kill(pid, number) // fails only if it has ended
		}
	}
}

// exitCode is what a shell makes of it.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func mountNodeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mounting %s: %w", dir, err)
	}
	return nil
}

// unmountNodeDir hides the folder at once, with all that is mounted below it.
func unmountNodeDir(dir string) error {
	err := syscall.Unmount(dir, syscall.MNT_DETACH)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
		return nil // it was never mounted
	}
	return err
}
