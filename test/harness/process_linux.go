package harness

import "syscall"

// childAttributes keeps Ctrl-C in a terminal from reaching a child before it can be stopped in order, and has the kernel
// end it together with the thread that started it.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
