package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// asking is how Marketing Cloud is asked.
type asking struct {
	allowedHosts []string
	caFile       string
}

func (a *asking) addFlags(command *cobra.Command) {
	command.Flags().StringSliceVar(&a.allowedHosts, "allow-rest-host", nil, "HOST or HOST:PORT to send the token to "+
		"beside mc….rest.marketingcloudapis.com, for gateways and tests; can be repeated")
	command.Flags().StringVar(&a.caFile, "ca-file", "", "PEM file of root certificates to trust beside the system's")
}

// client returns what asks Marketing Cloud, once the flags are right.
func (p *plugin) askingClient() (*sfmc.Client, error) {
	for i, host := range p.asking.allowedHosts {
		parsed, err := sfmc.ParseAllowedHost("--allow-rest-host", host)
		if err != nil {
			return nil, err
		}
		p.asking.allowedHosts[i] = parsed
	}
	var roots []byte
	if p.asking.caFile != "" {
		var err error
		if roots, err = os.ReadFile(p.asking.caFile); err != nil {
			return nil, fmt.Errorf("read --ca-file: %w", err)
		}
	}
	return sfmc.NewClient(roots, p.clock)
}

// heldToken is what whoami needs of a target Secret.
type heldToken struct{ accessToken, host, expiresAt string }

// whoami asks Marketing Cloud whom an SFMCToken's token acts for. No other command reads a token, and this one prints
// none.
func (p *plugin) whoami(ctx context.Context, names []string) error {
	client, err := p.askingClient()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	token, err := p.tokens(p.namespace).Get(ctx, names[0], metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the SFMCToken: %w", err)
	}
	held, err := p.held(ctx, token)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	acts, err := client.RequestTokenContext(limited, held.host, held.accessToken)
	switch {
	case errors.Is(err, sfmc.ErrTokenNotAccepted):
		fmt.Fprintf(p.Out, "Marketing Cloud doesn't accept the token in Secret %s: it has expired or was revoked. It "+
			"expires %s by the Secret.\nGet a new one: kubectl sfmctoken refresh %s -n %s\n",
			token.Status.TargetSecretName, p.expiry(held), token.Name, token.Namespace)
		return errFound
	case err != nil:
		return fmt.Errorf("ask Marketing Cloud: %w", err)
	}
	return p.introduce(token, held, acts)
}

// held reads the token that an SFMCToken's target Secret holds, and where it may be sent.
func (p *plugin) held(ctx context.Context, token *v1alpha1.SFMCToken) (heldToken, error) {
	name := token.Status.TargetSecretName
	if name == "" {
		fmt.Fprintf(p.Out, "SFMCToken %s/%s has no token. See kubectl sfmctoken status %s -n %s.\n",
			token.Namespace, token.Name, token.Name, token.Namespace)
		return heldToken{}, errFound
	}
	secret, err := p.core.Secrets(token.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return heldToken{}, fmt.Errorf("read the target Secret: %w", err)
	}
	held := heldToken{accessToken: string(secret.Data["access_token"]), expiresAt: string(secret.Data["expires_at"])}
	if held.accessToken == "" {
		fmt.Fprintf(p.Out, "Secret %s holds no token. See kubectl sfmctoken status %s -n %s.\n",
			name, token.Name, token.Namespace)
		return heldToken{}, errFound
	}
	url := string(secret.Data["rest_instance_url"])
	if held.host, err = sfmc.ParseRESTInstanceURL(url, p.asking.allowedHosts); err != nil {
		return heldToken{}, fmt.Errorf("the token is sent nowhere: rest_instance_url in Secret %s: %w, and none that "+
			"--allow-rest-host names", name, err)
	}
	return held, nil
}

// introduce prints whom a token acts for.
func (p *plugin) introduce(token *v1alpha1.SFMCToken, held heldToken, acts sfmc.TokenContext) error {
	asked := token.Spec.AccountID
	isRight := asked == "" || asked == acts.OrganizationID
	fits := "as spec.accountID says"
	switch {
	case asked == "":
		fits = "the one in which the package was made: spec.accountID is absent"
	case !isRight:
		fits = "but spec.accountID is " + asked
	}
	fmt.Fprintf(p.Out, "SFMCToken %s/%s acts for\n", token.Namespace, token.Name)
	p.field("Business unit", fmt.Sprintf("%s (%s)", acts.OrganizationID, fits))
	p.field("Enterprise", orDash(acts.EnterpriseID))
	p.field("User", orDash(acts.UserID))
	p.field("Expires", p.expiry(held))
	if !isRight {
		return errFound
	}
	return nil
}

// expiry returns when a token expires, as the Secret says.
func (p *plugin) expiry(held heldToken) string {
	at, err := time.Parse(time.RFC3339, held.expiresAt)
	if err != nil {
		return unseen
	}
	return doctor.When(&metav1.Time{Time: at}, p.clock.Now())
}
