package localcluster

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// nodePackages are what a node takes from Debian: what starts containers, what
// connects them, and what makes the bridge that they are connected to.
var nodePackages = []string{"runc", "containernetworking-plugins", "iproute2"}

// Where Debian's packages put them.
const (
	runcProgram = "/usr/sbin/runc"
	cniPlugins  = "/usr/lib/cni"
)

// InstallPackages installs those of Debian's packages that are missing.
func InstallPackages(ctx context.Context, progress io.Writer, packages ...string) error {
	var missing []string
	for _, name := range packages {
		status, err := exec.CommandContext(ctx, "dpkg-query", "--show", "--showformat=${db:Status-Status}", name).Output()
		if err != nil || string(status) != "installed" {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintf(progress, "installing %s from Debian's packages\n", strings.Join(missing, ", "))
	for _, args := range [][]string{
		{"update", "--quiet"},
		append([]string{"install", "--quiet", "--yes", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(cmd.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s, which needs Debian or a relative of it: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}
