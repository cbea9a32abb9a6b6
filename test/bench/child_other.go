//go:build !linux

package main

import "syscall"

// childAttributes keeps Ctrl-C in a terminal from reaching the programs before they can be stopped in order.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
