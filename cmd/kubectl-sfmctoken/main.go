// Command kubectl-sfmctoken is a plugin of kubectl that shows how SFMCTokens are, names the pods that miss refreshes,
// asks for a new token, suspends and resumes, says whom a token acts for, and looks at the operator itself. Only whoami
// reads what is in a Secret, and it prints no token.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // whatever kubectl can log in with
	"k8s.io/utils/clock"

	"github.com/sfmctoken/sfmctoken-operator/internal/version"
)

// Exit codes beside 0.
const (
	exitFound  = 1 // what was asked about isn't well
	exitFailed = 2 // it isn't known
)

// fieldManager is whose the fields are that it changes.
const fieldManager = "kubectl-sfmctoken"

// completer is the name by which kubectl calls it for what a person may mean.
const completer = "kubectl_complete-sfmctoken"

// errFound means that the answer is no, and has been printed.
var errFound = errors.New("not all is well")

// plugin is what the commands work with. Its clients are for a namespace, or for all if that is empty.
type plugin struct {
	genericiooptions.IOStreams
	clock         clock.PassiveClock
	connection    *genericclioptions.ConfigFlags
	allNamespaces bool
	listing       listing
	diagnosis     diagnosis
	asking        asking
	reporting     reporting
	timeout       time.Duration
	clientOnly    bool   // of version
	home          string // the operator's namespace
	understood    bool   // the command line is right

	namespace string // all if empty
	clients
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == completer {
		args = append([]string{cobra.ShellCompRequestCmd}, args...)
	}
	code := run(ctx, args, genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr})
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, streams genericiooptions.IOStreams) int {
	p := &plugin{IOStreams: streams, clock: clock.RealClock{}, connection: genericclioptions.NewConfigFlags(true)}
	root := p.commands()
	root.SetArgs(args)
	root.SetOut(p.Out)
	command, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFound):
		return exitFound
	case !p.understood:
		err = fmt.Errorf("%w; see %s --help", err, command.CommandPath())
	}
	fmt.Fprintf(p.ErrOut, "%s: %v\n", root.DisplayName(), err)
	return exitFailed
}

// commands returns the command line, which lists unless told else.
func (p *plugin) commands() *cobra.Command {
	list := p.command("list", "Show a line for each SFMCToken", cobra.NoArgs, p.list)
	root := &cobra.Command{
		Use:         "kubectl-sfmctoken",
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl sfmctoken"},
		Long: `Shows how SFMCTokens are, names the pods that miss their refreshes, asks for a new token,
suspends and resumes, says whom a token acts for, and looks at the operator itself.
Without a command, it lists. Each command exits with 2 if it can't do its work.`,
		Version: version.Get().String(),
		Args:    cobra.NoArgs, RunE: list.RunE, SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	p.connection.CacheDir = nil // nothing is cached
	p.connection.AddFlags(root.PersistentFlags())
	root.Flags().BoolVarP(&p.allNamespaces, "all-namespaces", "A", false, "Look at all namespaces")
	root.MarkFlagsMutuallyExclusive("namespace", "all-namespaces")
	p.listing.addFlags(root)
	root.LocalNonPersistentFlags().VisitAll(list.Flags().AddFlag)
	root.AddCommand(list)
	root.AddCommand(p.commandsForOne()...)
	root.AddCommand(p.commandsForAll(root)...)
	return root
}

// commandsForOne returns the commands about SFMCTokens that the command line names.
func (p *plugin) commandsForOne() []*cobra.Command {
	status := p.command("status NAME", "Show all that there is to know of an SFMCToken; exit with 1 if it isn't Ready",
		cobra.ExactArgs(1), p.status)
	refresh := p.command("refresh NAME", "Ask for a new token and wait for it; exit with 1 if there is none",
		cobra.ExactArgs(1), p.refresh)
	suspend := p.command("suspend NAME...", "End the refreshes of SFMCTokens; their tokens stay until they expire",
		cobra.MinimumNArgs(1), p.suspend)
	resume := p.command("resume NAME...", "Have SFMCTokens refreshed again", cobra.MinimumNArgs(1), p.resume)
	whoami := p.command("whoami NAME", "Ask Marketing Cloud whom a token acts for; exit with 1 if it isn't accepted",
		cobra.ExactArgs(1), p.whoami)
	refresh.Flags().DurationVar(&p.timeout, "timeout", time.Minute, "How long to wait")
	whoami.Flags().AddFlag(refresh.Flag("timeout"))
	p.asking.addFlags(whoami)
	all := []*cobra.Command{status, refresh, suspend, resume, whoami}
	for _, command := range all {
		command.ValidArgsFunction = p.complete
	}
	return all
}

// commandsForAll returns the commands about all SFMCTokens of a namespace, and about the operator.
func (p *plugin) commandsForAll(root *cobra.Command) []*cobra.Command {
	doctor := p.command("doctor", "Name problems, and pods that read a token once, when they start; exit with 1 if any",
		cobra.NoArgs, p.doctor)
	check := p.command("check", "Tell whether the operator is installed and runs; exit with 1 if not",
		cobra.NoArgs, p.check)
	version := p.command("version", "Show the plugin's version and the operator's", cobra.NoArgs, p.version)
	report := p.command("report", "Write an archive for a bug report, without anything secret", cobra.NoArgs, p.report)
	doctor.Flags().AddFlag(root.Flag("all-namespaces"))
	report.Flags().AddFlag(root.Flag("all-namespaces"))
	p.diagnosis.addFlags(doctor)
	p.reporting.addFlags(report)
	version.Flags().BoolVar(&p.clientOnly, "client", false, "Show the plugin's version alone")
	check.Flags().StringVar(&p.home, "operator-namespace", "sfmctoken-system", "Namespace that the operator runs in")
	version.Flags().AddFlag(check.Flag("operator-namespace"))
	report.Flags().AddFlag(check.Flag("operator-namespace"))
	return []*cobra.Command{doctor, check, version, report}
}

// command returns a command that connects to the cluster once the command line is understood, and then works.
func (p *plugin) command(
	use, short string, args cobra.PositionalArgs, work func(ctx context.Context, names []string) error,
) *cobra.Command {
	run := func(command *cobra.Command, names []string) error {
		if p.timeout <= 0 {
			return errors.New("--timeout must be more than 0")
		}
		p.understood = true
		if !p.clientOnly {
			if err := p.connect(); err != nil {
				return err
			}
		}
		return work(command.Context(), names)
	}
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: run}
}

// complete returns the names of SFMCTokens that aren't on the command line yet. Whoever may not list them gets none.
func (p *plugin) complete(
	command *cobra.Command, names []string, _ string,
) (candidates []cobra.Completion, _ cobra.ShellCompDirective) {
	if command.ValidateArgs(append(names, "one more")) != nil || p.connect() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	tokens, err := p.tokens(p.namespace).List(command.Context(), metav1.ListOptions{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, token := range tokens.Items {
		if !slices.Contains(names, token.Name) {
			candidates = append(candidates, token.Name)
		}
	}
	return candidates, cobra.ShellCompDirectiveNoFileComp
}
