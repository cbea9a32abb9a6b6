// Command sfmc-standin serves the Marketing Cloud stand-in of the tests on its
// own: for the demo, for benchmarks and in pods. Its control API under
// /_control/ has no authentication; see package sfmctest for what it offers.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "sfmc-standin:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	options, caOut, err := readFlags(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	server, err := sfmctest.NewServer(options)
	if err != nil {
		return err
	}
	defer server.Close()
	if caOut != "" {
		// 0644: a certificate is public, and whoever calls the server needs it.
		if err := os.WriteFile(caOut, server.CACert(), 0o644); err != nil { //nolint:gosec // see above
			return fmt.Errorf("write the CA certificate: %w", err)
		}
	}
	// Last, so that whoever waits for this line finds all else in place.
	fmt.Println(server.URL())
	<-ctx.Done()
	return nil
}

func readFlags(args []string) (options sfmctest.Options, caOut string, err error) {
	flags := flag.NewFlagSet("sfmc-standin", flag.ContinueOnError)
	var single sfmctest.Package
	var quiet bool
	flags.StringVar(&options.Listen, "listen", "127.0.0.1:0", "`address` to listen on; with port 0, a free one")
	flags.Func("host", "further `name` or address in the server's certificate (repeatable)", func(host string) error {
		options.Hosts = append(options.Hosts, host)
		return nil
	})
	flags.DurationVar(&options.ExpiresIn, "expires-in", 0, "life that answers report (default 17m59s, as Salesforce does)")
	flags.DurationVar(&options.Life, "life", 0, "real life of tokens (default: two minutes more than reported)")
	flags.BoolVar(&options.KillOldTokens, "kill-old-tokens", false, "let a new token end the older ones of its client and business unit")
	flags.DurationVar(&options.Latency, "latency", 0, "delay of each answer to a token request")
	flags.StringVar(&caOut, "ca-out", "", "`file` to write the CA certificate to, as PEM")
	flags.BoolVar(&quiet, "quiet", false, "do not log token requests")
	flags.Func("package", "JSON `file` with an installed package, or an array of them (repeatable)", func(file string) error {
		packages, err := readPackages(file)
		options.Packages = append(options.Packages, packages...)
		return err
	})
	flags.StringVar(&single.ClientID, "client-id", "", "`client id` of one more package")
	flags.StringVar(&single.ClientSecret, "client-secret", "", "its client `secret`")
	flags.StringVar(&single.AccountID, "account-id", "", "`MID` of the business unit that owns it")
	accounts := flags.String("enabled-account-ids", "", "comma-separated `MIDs` of the further business units enabled on it")
	scopes := flags.String("scopes", "", "its `scopes`, separated by spaces or commas")
	if err := flags.Parse(args); err != nil {
		return options, "", err
	}
	if flags.NArg() > 0 {
		return options, "", fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if single.ClientID != "" {
		single.AccountIDs, single.Scopes = list(*accounts), list(*scopes)
		options.Packages = append(options.Packages, single)
	}
	if !quiet {
		options.OnTokenRequest = logTo(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	}
	return options, caOut, nil
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

func readPackages(file string) ([]sfmctest.Package, error) {
	data, err := os.ReadFile(file) //nolint:gosec // the user names it
	if err != nil {
		return nil, err
	}
	return sfmctest.DecodePackages(bytes.NewReader(data))
}

// logTo logs a line per token request; a TokenRequest holds no secret and no
// token.
func logTo(logger *slog.Logger) func(sfmctest.TokenRequest) {
	return func(r sfmctest.TokenRequest) {
		logger.Info("token request", "client_id", r.ClientID, "account_id", r.AccountID, "scope", r.Scope,
			"status", r.Status, "refusal", string(r.Refusal), "issued", r.Issued)
	}
}
