package localcluster

import "syscall"

// childAttributes keeps Ctrl-C in a terminal from reaching the programs before
// they can be stopped in order, and has the kernel end them if their parent is
// killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
