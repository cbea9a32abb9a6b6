// Command bearertokenauth calls Marketing Cloud as an exporter of the OpenTelemetry Collector would: by the Collector's own
// extension, with the part of its configuration that the argument names. SFMC_DIR and EVERY mean the same as for the
// examples.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/bearertokenauthextension"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/extension/extensionauth"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"sigs.k8s.io/yaml"
)

func main() {
	err := run(context.Background(), os.Args[1], os.Getenv("SFMC_DIR"), os.Getenv("EVERY"))
	fmt.Fprintln(os.Stderr, "bearertokenauth:", err)
	os.Exit(1)
}

// run calls until a call fails.
func run(ctx context.Context, config, dir, every string) error {
	pause, err := strconv.ParseFloat(every, 64)
	if err != nil {
		return err
	}
	transport, err := start(ctx, config, dir)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	for err == nil {
		if err = call(ctx, client, dir); err == nil {
			time.Sleep(time.Duration(pause * float64(time.Second)))
		}
	}
	return err
}

// start starts the extension. Its file is that of the folder.
func start(ctx context.Context, config, dir string) (http.RoundTripper, error) {
	text, err := os.ReadFile(config) //nolint:gosec // what the argument names
	if err != nil {
		return nil, err
	}
	var collector struct {
		Extensions struct {
			BearerTokenAuth map[string]any `json:"bearertokenauth"`
		} `json:"extensions"`
	}
	if err := yaml.UnmarshalStrict(text, &collector); err != nil {
		return nil, err
	}
	factory := bearertokenauthextension.NewFactory()
	settings, ok := factory.CreateDefaultConfig().(*bearertokenauthextension.Config)
	if !ok {
		return nil, errors.New("the extension has a configuration of another kind")
	}
	if err := confmap.NewFromStringMap(collector.Extensions.BearerTokenAuth).Unmarshal(settings); err != nil {
		return nil, err
	}
	settings.Filename = filepath.Join(dir, filepath.Base(settings.Filename))
	if err := settings.Validate(); err != nil {
		return nil, err
	}
	extension, err := factory.Create(ctx, extensiontest.NewNopSettings(factory.Type()), settings)
	if err != nil {
		return nil, err
	}
	if err := extension.Start(ctx, componenttest.NewNopHost()); err != nil {
		return nil, err
	}
	authenticator, ok := extension.(extensionauth.HTTPClient)
	if !ok {
		return nil, errors.New("the extension doesn't authenticate HTTP clients")
	}
	return authenticator.RoundTripper(http.DefaultTransport)
}

func call(ctx context.Context, client *http.Client, dir string) error {
	url, err := os.ReadFile(filepath.Join(dir, "rest_instance_url")) //nolint:gosec // the test's
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, string(url)+"platform/v1/tokenContext", nil) //nolint:gosec // as the Secret says
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "OpenTelemetry")
	answer, err := client.Do(request) //nolint:gosec // as the Secret says
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		return errors.Join(errors.New("the call failed: "+answer.Status), err)
	}
	fmt.Println(string(body))
	return nil
}
