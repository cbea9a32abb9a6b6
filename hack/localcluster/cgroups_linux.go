package localcluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	cgroupMount  = "/sys/fs/cgroup"
	cgroupPrefix = "localcluster-"
)

// makeCgroup makes the cgroup below which kubelet puts all pods. It is apart from
// those of a kubelet that the machine may have, and easy to remove.
func makeCgroup(name string) error {
	for _, hierarchy := range cgroupHierarchies() {
		dir := filepath.Join(hierarchy, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making a cgroup for pods: %w", err)
		}
		// In cgroup v1 a new cpuset has no processors, and nothing can run in it.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			content, err := os.ReadFile(filepath.Join(hierarchy, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err := errors.Join(err, os.WriteFile(filepath.Join(dir, file), content, 0o600)); err != nil {
				return fmt.Errorf("making a cgroup for pods: %w", err)
			}
		}
	}
	return nil
}

// cgroupHierarchies are one folder with cgroup v2, and one for each controller
// with v1.
func cgroupHierarchies() []string {
	if _, err := os.Stat(filepath.Join(cgroupMount, "cgroup.controllers")); err == nil {
		return []string{cgroupMount}
	}
	entries, err := os.ReadDir(cgroupMount)
	if err != nil {
		return nil
	}
	var found []string
	for _, entry := range entries {
		if dir := filepath.Join(cgroupMount, entry.Name()); entry.IsDir() {
			found = append(found, dir)
		}
	}
	return found
}

// removeStaleCgroups removes the cgroups of nodes that are gone, which is the one
// thing that the kernel keeps.
func removeStaleCgroups() {
	for _, hierarchy := range cgroupHierarchies() {
		roots, err := filepath.Glob(filepath.Join(hierarchy, cgroupPrefix+"*"))
		if err != nil {
			continue
		}
		var dirs []string
		for _, root := range roots {
			if ownerLives(root) {
				continue
			}
			_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.IsDir() {
					dirs = append(dirs, path)
				}
				return nil // what vanishes meanwhile is not missed
			})
		}
		// Children first.
		slices.SortFunc(dirs, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
		for _, dir := range dirs {
			_ = os.Remove(dir) // rmdir: refused while anything runs in it
		}
	}
}

// ownerLives tells whether the cgroup belongs to another program that runs: its
// first stage gave the name.
func ownerLives(root string) bool {
	pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(root), cgroupPrefix))
	return err == nil && pid != os.Getpid() && syscall.Kill(pid, 0) == nil
}
