package flux

import (
	"context"
	"net/http/cgi" //nolint:gosec // of a newer Go
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// gitServer serves bare repositories over HTTP, by Git's own server.
type gitServer struct {
	t       *testing.T
	folder  string
	address string
}

func startGitServer(t *testing.T) *gitServer {
	g := NewWithT(t)
	programs, err := exec.CommandContext(t.Context(), "git", "--exec-path").Output()
	g.Expect(err).NotTo(HaveOccurred(), "git must be installed")
	s := &gitServer{t: t, folder: t.TempDir()}
	server := httptest.NewServer(&cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(programs)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + s.folder, "GIT_HTTP_EXPORT_ALL=1"},
	})
	t.Cleanup(server.Close)
	s.address = server.URL
	return s
}

// repository is a repository of the server, and a clone in which a person works.
type repository struct {
	*WithT
	ctx context.Context
	url string
	dir string
}

// newRepository has the files of a folder, still to be committed.
func (s *gitServer) newRepository(name, folder string) *repository {
	s.t.Helper()
	r := &repository{NewWithT(s.t), s.t.Context(), s.address + "/" + name + ".git", s.t.TempDir()}
	bare := filepath.Join(s.folder, name+".git")
	r.run("git", "init", "--quiet", "--bare", "--initial-branch=main", bare)
	r.run("git", "clone", "--quiet", bare, ".")
	r.Expect(os.CopyFS(r.dir, os.DirFS(folder))).To(Succeed())
	return r
}

// run runs a command in the clone and returns what it printed.
func (r *repository) run(command ...string) string {
	cmd := exec.CommandContext(r.ctx, command[0], command[1:]...) //nolint:gosec // git and sops, with arguments made here
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a person", "GIT_AUTHOR_EMAIL=person@example.com",
		"GIT_COMMITTER_NAME=a person", "GIT_COMMITTER_EMAIL=person@example.com")
	out, err := cmd.CombinedOutput()
	r.Expect(err).NotTo(HaveOccurred(), "%v: %s", command, out)
	return strings.TrimSpace(string(out))
}

// replace changes a text in a file, which must have it.
func (r *repository) replace(file, text, by string) {
	path := filepath.Join(r.dir, file)
	raw, err := os.ReadFile(path) //nolint:gosec // of this test
	r.Expect(err).NotTo(HaveOccurred())
	r.Expect(string(raw)).To(ContainSubstring(text), file)
	r.Expect(os.WriteFile(path, []byte(strings.ReplaceAll(string(raw), text, by)), 0o600)).To(Succeed()) //nolint:gosec // of this test
}

// push commits everything and returns the revision as Flux names it.
func (r *repository) push(message string) string {
	r.run("git", "add", "--all")
	r.run("git", "commit", "--quiet", "--message", message)
	r.run("git", "push", "--quiet", "origin", "HEAD:main")
	return "main@sha1:" + r.run("git", "rev-parse", "HEAD")
}
