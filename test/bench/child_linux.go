package main

import "syscall"

// childAttributes keeps Ctrl-C in a terminal from reaching the programs before they can be stopped in order, and has
// the kernel end them if this process is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
