// Command killer ends a process of another pod on its node as a crash would, when asked to. It sees those processes in a
// pod with hostPID, and may end them because they belong to the same user and group.
package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

func main() {
	http.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		if err := kill(r.FormValue("program"), r.FormValue("pod")); err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
		}
	})
	server := &http.Server{Addr: ":8080", ReadHeaderTimeout: 5 * time.Second}
	fmt.Fprintln(os.Stderr, "killer:", server.ListenAndServe())
	os.Exit(1)
}

// kill ends the one process that runs a program in a pod. The pod's name is in the environment of all that run in it.
func kill(program, pod string) error {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		commandLine, _ := os.ReadFile(filepath.Join(dir, "cmdline")) //nolint:gosec // of /proc
		environment, _ := os.ReadFile(filepath.Join(dir, "environ")) //nolint:gosec // of /proc, which refuses what belongs to others
		name, _, _ := bytes.Cut(commandLine, []byte{0})
		if string(name) != program || !slices.ContainsFunc(bytes.Split(environment, []byte{0}), func(variable []byte) bool {
			return string(variable) == "HOSTNAME="+pod
		}) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return err
		}
		return syscall.Kill(pid, syscall.SIGKILL)
	}
	return fmt.Errorf("no process of user %d and group %d runs %s in the pod %s", os.Getuid(), os.Getgid(), program, pod)
}
