package sfmc

import (
	"errors"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

const (
	wrongTenant = "mcabcdefghij-0123456789k_lmn" // an underscore
	goodTenant  = "mcabcdefghij-0123456789k-lmn"
	goodHost    = goodTenant + ".auth.marketingcloudapis.com"

	notWhole  = "whole URL that starts with https://"
	notAuth   = "not a Marketing Cloud authentication host"
	otherBase = "REST or SOAP base URI; the authentication host has .auth. instead"
)

func TestTheAuthenticationBaseURIIsAcceptedAsSetupShowsIt(t *testing.T) {
	for _, uri := range []string{
		"https://" + goodHost, "https://" + goodHost + "/", "HTTPS://" + goodHost + "/",
		"https://" + strings.ToUpper(goodHost),
		"https://mc563885gzs27c5t9-63k636ttgm.auth.marketingcloudapis.com/",
		"https://mc--------------------------.auth.marketingcloudapis.com",
	} {
		g := NewWithT(t)
		host, err := ParseAuthBaseURI(uri, nil)
		g.Expect(err).NotTo(HaveOccurred(), uri)
		g.Expect("https://" + host).To(Equal(strings.TrimSuffix(strings.ToLower(uri), "/")))
	}
}

// mistyped are what users write instead of an Authentication Base URI, with the part of the refusal that tells them.
var mistyped = map[string]string{
	goodTenant:                               notWhole,
	goodHost:                                 notWhole,
	goodHost + "/":                           notWhole,
	goodHost + "/v2/token":                   notWhole,
	"//" + goodHost + "/":                    notWhole,
	"https:" + goodHost:                      notWhole,
	"https:/" + goodHost:                     notWhole,
	"htps://" + goodHost:                     notWhole,
	"ftp://" + goodHost:                      notWhole,
	"https://":                               notWhole,
	"":                                       notWhole,
	"http://" + goodHost + "/":               "must start with https://, since the client secret is sent there",
	"https://" + goodHost + "/v2/token":      "leave out the path, the operator adds /v2/token itself",
	"https://" + goodHost + "/v2":            "leave out the path",
	"https://" + goodHost + "//":             "leave out the path",
	"https://" + goodHost + "/%2f":           "leave out the path",
	"https://" + goodHost + "?":              "must not have a query or a fragment",
	"https://" + goodHost + "/?a=b":          "must not have a query or a fragment",
	"https://" + goodHost + "/#":             "must not have a query or a fragment",
	"https://someone@" + goodHost + "/":      "must not contain a user name or password",
	"https://id:" + secret + "@" + goodHost:  "must not contain a user name or password",
	"https://" + goodHost + "@evil.example/": "must not contain a user name or password",
	"https://" + goodHost + ":443/":          "host and port are not allowed",
	"https://" + goodHost + ":8443":          "host and port are not allowed",
	"https://" + goodHost + ":":              "host and port are not allowed",
	"https://" + goodTenant + ".rest.marketingcloudapis.com/":      otherBase,
	"https://" + goodTenant + ".soap.marketingcloudapis.com/":      otherBase,
	"https://" + goodTenant + "-.auth.marketingcloudapis.com/":     notAuth, // 29 characters
	"https://" + goodTenant[:27] + ".auth.marketingcloudapis.com":  notAuth,
	"https://xx" + goodTenant[2:] + ".auth.marketingcloudapis.com": notAuth,
	"https://" + wrongTenant + ".auth.marketingcloudapis.com":      notAuth,
	"https://auth.marketingcloudapis.com/":                         notAuth,
	"https://x." + goodHost + "/":                                  notAuth,
	"https://" + goodHost + "./":                                   notAuth,
	"https://" + goodHost + ".evil.example/":                       notAuth,
	"https://" + goodTenant + ".auth.marketingcloudapi.com/":       notAuth,
	"https://" + goodTenant + ".auth-marketingcloudapis.com/":      notAuth,
	"https://auth.exacttargetapis.com/v1/requestToken":             "leave out the path",
	"https://auth.exacttargetapis.com":                             notAuth,
	"https://169.254.169.254/":                                     notAuth,
	"https://localhost":                                            notAuth,
	"https://[::1]/":                                               notAuth,
	"https://" + goodHost + "\n.evil.example":                      "not a URL",
	"https://good host/":                                           "not a URL",
	"https://%zz/":                                                 "not a URL",
	"https://[::1/":                                                "not a URL",
	"https://" + goodHost + ":port":                                "not a URL",
	secret:                                                         notWhole, // the wrong value altogether
}

func TestWhatUsersMistypeIsRefusedWithWhatToWrite(t *testing.T) {
	for uri, says := range mistyped {
		t.Run(uri, func(t *testing.T) {
			g := NewWithT(t)
			host, err := ParseAuthBaseURI(uri, []string{"gateway.example"})
			g.Expect(host).To(BeEmpty())
			var refused *HostNotAllowedError
			g.Expect(errors.As(err, &refused)).To(BeTrue())
			g.Expect(err).To(MatchError(ContainSubstring(says)))
			g.Expect(err).To(MatchError(HaveSuffix("copy the Authentication Base URI from Setup > Installed " +
				"Packages, for example https://mc563885gzs27c5t9-63k636ttgm.auth.marketingcloudapis.com/")))
			for _, part := range []string{goodTenant, secret, "evil", "gateway.example", "169.254"} {
				g.Expect(err.Error()).NotTo(ContainSubstring(part))
			}
			if len(uri) > len("https://") {
				g.Expect(err.Error()).NotTo(ContainSubstring(uri))
			}
			expectSafe(t, err.Error())
		})
	}
}

func TestAnAllowedHostIsAcceptedExactly(t *testing.T) {
	allowed := []string{"gateway.example", "127.0.0.1:8443", "[::1]:8443"}
	for uri, host := range map[string]string{
		"https://gateway.example":      "gateway.example",
		"https://Gateway.Example/":     "gateway.example",
		"https://127.0.0.1:8443/":      "127.0.0.1:8443",
		"https://[::1]:8443/":          "[::1]:8443",
		"https://" + goodHost + "/":    goodHost,
		"https://gateway.example:443/": "",
		"https://gateway.example:":     "",
		"https://127.0.0.1/":           "",
		"https://127.0.0.1:8444/":      "",
		"https://x.gateway.example/":   "",
		"https://gateway.example.x/":   "",
		"https://gateway.example/auth": "",
		"https://a@gateway.example/":   "",
		"http://gateway.example/":      "",
	} {
		g := NewWithT(t)
		got, err := ParseAuthBaseURI(uri, allowed)
		g.Expect(got).To(Equal(host), uri)
		if host == "" {
			g.Expect(err).To(HaveOccurred(), uri)
		} else {
			g.Expect(err).NotTo(HaveOccurred(), uri)
		}
	}
}

func TestATokenIsSentToMarketingCloudAlone(t *testing.T) {
	const own = goodTenant + ".rest.marketingcloudapis.com"
	allowed := []string{"gateway.example", "127.0.0.1:8443"}
	for uri, host := range map[string]string{
		"https://" + own + "/":                    own,
		"https://" + own:                          own,
		"https://" + strings.ToUpper(own) + "/":   own,
		"https://gateway.example/":                "gateway.example",
		"https://127.0.0.1:8443/":                 "127.0.0.1:8443",
		"https://127.0.0.1:8444/":                 "",
		"http://" + own + "/":                     "",
		own:                                       "",
		"":                                        "",
		"https://":                                "",
		"https://" + own + ":443/":                "",
		"https://" + own + "/platform":            "",
		"https://" + own + "/?a=b":                "",
		"https://" + own + "/#a":                  "",
		"https://" + own + "@evil.example/":       "",
		"https://" + own + ".evil.example/":       "",
		"https://x." + own + "/":                  "",
		"https://" + goodHost + "/":               "", // the authentication host
		"https://evil.example/" + own:             "",
		"https://x.gateway.example/":              "",
		"https://rest.marketingcloudapis.com/":    "",
		"https://" + own + "\n.evil.example":      "",
		"https://" + wrongTenant + own[28:] + "/": "",
	} {
		g := NewWithT(t)
		got, err := ParseRESTInstanceURL(uri, allowed)
		g.Expect(got).To(Equal(host), uri)
		if host != "" {
			g.Expect(err).NotTo(HaveOccurred(), uri)
			continue
		}
		var refused *HostNotAllowedError
		g.Expect(errors.As(err, &refused)).To(BeTrue(), uri)
		g.Expect(err.Error()).NotTo(Or(ContainSubstring(goodTenant), ContainSubstring("evil"), ContainSubstring("gateway")))
	}
}

func TestAnAllowedHostIsAHostWithAtMostAPort(t *testing.T) {
	for value, want := range map[string]string{
		"gateway.example":      "gateway.example",
		"Gateway.Example:8443": "gateway.example:8443",
		"127.0.0.1:1":          "127.0.0.1:1",
		"[::1]":                "[::1]",
		"[::1]:8443":           "[::1]:8443",
	} {
		g := NewWithT(t)
		got, err := ParseAllowedHost("--allow-auth-host", value)
		g.Expect(err).NotTo(HaveOccurred(), value)
		g.Expect(got).To(Equal(want))
	}
	for _, value := range []string{
		"", "https://gateway.example", "gateway.example/", "gateway.example/v2", "a@gateway.example",
		"gateway.example:", ":8443", "gateway.example:https", "two hosts", "a?b", "a#b", "::1",
	} {
		g := NewWithT(t)
		got, err := ParseAllowedHost("--allow-auth-host", value)
		g.Expect(err).To(MatchError(ContainSubstring("must be HOST or HOST:PORT")), "%q became %q", value, got)
	}
}
