// Command kubectl-sfmctoken is a plugin of kubectl that shows how SFMCTokens are, names the pods that miss refreshes,
// asks for a new token, suspends and resumes. It never reads what is in a Secret.
package main

import (
	"cmp"
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
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/kubernetes/scheme"
	appsv1client "k8s.io/client-go/kubernetes/typed/apps/v1"
	batchv1client "k8s.io/client-go/kubernetes/typed/batch/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // whatever kubectl can log in with
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
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
	timeout       time.Duration
	understood    bool // the command line is right

	namespace string // all if empty
	tokens    func(namespace string) *gentype.ClientWithList[*v1alpha1.SFMCToken, *v1alpha1.SFMCTokenList]
	pods      corev1client.PodsGetter
	apps      appsv1client.AppsV1Interface
	batch     batchv1client.BatchV1Interface
	secrets   metadata.Getter // has the record of a token, an annotation; the token itself stays in the cluster
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
	doctor := p.command("doctor", "Name problems, and pods that read a token once, when they start; exit with 1 if any",
		cobra.NoArgs, p.doctor)
	refresh := p.command("refresh NAME", "Ask for a new token and wait for it; exit with 1 if there is none",
		cobra.ExactArgs(1), p.refresh)
	suspend := p.command("suspend NAME...", "End the refreshes of SFMCTokens; their tokens stay until they expire",
		cobra.MinimumNArgs(1), p.suspend)
	resume := p.command("resume NAME...", "Have SFMCTokens refreshed again", cobra.MinimumNArgs(1), p.resume)
	for _, named := range []*cobra.Command{refresh, suspend, resume} {
		named.ValidArgsFunction = p.complete
	}
	refresh.Flags().DurationVar(&p.timeout, "timeout", time.Minute, "How long to wait")
	root := &cobra.Command{
		Use:         "kubectl-sfmctoken",
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl sfmctoken"},
		Long: `Shows how SFMCTokens are, names the pods that miss their refreshes, asks for a new token,
suspends and resumes. Without a command, it lists. Each command exits with 2 if it can't do its work.`,
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
	doctor.Flags().AddFlag(root.Flag("all-namespaces"))
	root.AddCommand(list, doctor, refresh, suspend, resume)
	return root
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
		if err := p.connect(); err != nil {
			return err
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

func (p *plugin) connect() error {
	config, err := p.connection.ToRESTConfig()
	if err != nil {
		return fmt.Errorf("find a cluster: %w", err)
	}
	config.UserAgent = version.Get().UserAgent("kubectl-sfmctoken")
	config.QPS = -1 // a handful of requests
	if !p.allNamespaces {
		if p.namespace, _, err = p.connection.ToRawKubeConfigLoader().Namespace(); err != nil {
			return fmt.Errorf("find a namespace: %w", err)
		}
	}
	core, coreErr := corev1client.NewForConfig(config)
	apps, appsErr := appsv1client.NewForConfig(config)
	batch, batchErr := batchv1client.NewForConfig(config)
	objects, objectsErr := metadata.NewForConfig(config)
	schemeErr := v1alpha1.AddToScheme(scheme.Scheme)
	config.APIPath, config.GroupVersion = "/apis", &v1alpha1.GroupVersion
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	own, ownErr := rest.RESTClientFor(config)
	if err := cmp.Or(coreErr, appsErr, batchErr, objectsErr, schemeErr, ownErr); err != nil {
		return fmt.Errorf("connect to the cluster: %w", err)
	}
	p.pods, p.apps, p.batch = core, apps, batch
	p.secrets = objects.Resource(corev1.SchemeGroupVersion.WithResource("secrets"))
	p.tokens = func(namespace string) *gentype.ClientWithList[*v1alpha1.SFMCToken, *v1alpha1.SFMCTokenList] {
		return gentype.NewClientWithList("sfmctokens", own, scheme.ParameterCodec, namespace,
			func() *v1alpha1.SFMCToken { return &v1alpha1.SFMCToken{} },
			func() *v1alpha1.SFMCTokenList { return &v1alpha1.SFMCTokenList{} })
	}
	return nil
}
