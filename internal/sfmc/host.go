package sfmc

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// tenantAuthHost is the form of every tenant's authentication host: 28 characters that start with mc.
// Free text here would be a way to send a client secret to any host, so nothing else is accepted.
var tenantAuthHost = regexp.MustCompile(`^mc[a-z0-9-]{26}\.auth\.marketingcloudapis\.com$`)

// instanceHost is the form of the hosts that people take for it.
var instanceHost = regexp.MustCompile(`\.(rest|soap)\.marketingcloudapis\.com$`)

// tenantRESTHost is the form of every tenant's REST host.
var tenantRESTHost = regexp.MustCompile(`^mc[a-z0-9-]{26}\.rest\.marketingcloudapis\.com$`)

// HostNotAllowedError says why an address is refused. It quotes nothing of the value, which may be
// a client secret pasted under the wrong key.
type HostNotAllowedError struct{ Problem string }

func (e *HostNotAllowedError) Error() string { return e.Problem }

// ParseAuthBaseURI returns the host, with the port if there is one, of an Authentication Base URI such as
// https://mc563885gzs27c5t9-63k636ttgm.auth.marketingcloudapis.com/. Hosts beside Marketing Cloud's own are
// accepted only if allowed names them exactly, as HOST or HOST:PORT.
func ParseAuthBaseURI(uri string, allowed []string) (string, error) {
	const example = "copy the Authentication Base URI from Setup > Installed Packages, for example " +
		"https://mc563885gzs27c5t9-63k636ttgm.auth.marketingcloudapis.com/"
	refuse := func(problem string) (string, error) {
		return "", &HostNotAllowedError{Problem: fmt.Sprintf("%s; %s", problem, example)}
	}
	parsed, err := url.Parse(uri)
	switch {
	case err != nil:
		return refuse("it is not a URL")
	case parsed.Scheme == "http":
		return refuse("it must start with https://, since the client secret is sent there")
	case parsed.Scheme != "https" || parsed.Host == "":
		return refuse("it must be a whole URL that starts with https://")
	case parsed.User != nil:
		return refuse("it must not contain a user name or password")
	case parsed.Path != "" && parsed.Path != "/":
		return refuse("it must end after the host: leave out the path, the operator adds /v2/token itself")
	case parsed.RawQuery != "" || parsed.ForceQuery || strings.Contains(uri, "#"):
		return refuse("it must not have a query or a fragment")
	}
	host := strings.ToLower(parsed.Host)
	if slices.Contains(allowed, host) {
		return host, nil
	}
	switch {
	case parsed.Port() != "" || strings.HasSuffix(host, ":"):
		return refuse("its host and port are not allowed")
	case instanceHost.MatchString(host):
		return refuse("it is the REST or SOAP base URI; the authentication host has .auth. instead")
	case !tenantAuthHost.MatchString(host):
		return refuse("its host is not a Marketing Cloud authentication host (28 characters that start with mc, then " +
			".auth.marketingcloudapis.com) and not one that --allow-auth-host names")
	}
	return host, nil
}

// ParseRESTInstanceURL returns the host, with the port if there is one, of a REST instance URL, to which a token may be
// sent: one of Marketing Cloud's own, or one that allowed names exactly. Who may edit a target Secret must not learn a
// token by it from somebody else.
func ParseRESTInstanceURL(uri string, allowed []string) (string, error) {
	parsed, err := url.Parse(uri)
	if err != nil || parsed.Scheme != "https" || parsed.Host == "" || parsed.User != nil || parsed.RawQuery != "" ||
		parsed.Path != "" && parsed.Path != "/" || parsed.ForceQuery || strings.Contains(uri, "#") {
		return "", &HostNotAllowedError{Problem: "it is not https:// and a host"}
	}
	host := strings.ToLower(parsed.Host)
	if !slices.Contains(allowed, host) && !tenantRESTHost.MatchString(host) {
		return "", &HostNotAllowedError{Problem: "its host is not Marketing Cloud's (28 characters that start with " +
			"mc, then .rest.marketingcloudapis.com)"}
	}
	return host, nil
}

// ParseAllowedHost checks one value of a flag such as --allow-auth-host: a host name or address, optionally with a
// port.
func ParseAllowedHost(flag, value string) (string, error) {
	parsed, err := url.Parse("https://" + value)
	if err != nil || value == "" || parsed.Host != value || parsed.Hostname() == "" || strings.HasSuffix(value, ":") {
		return "", fmt.Errorf("%s %q must be HOST or HOST:PORT, without scheme and path", flag, value)
	}
	return strings.ToLower(value), nil
}
