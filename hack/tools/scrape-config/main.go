// Command scrape-config makes prometheus.yml of a ServiceMonitor as the Prometheus operator does, by its own generator.
package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus-operator/prometheus-operator/pkg/assets"
	"github.com/prometheus-operator/prometheus-operator/pkg/prometheus"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "scrape-config:", err)
		os.Exit(1)
	}
}

// run reads the two objects that a person would apply: a Prometheus and a ServiceMonitor.
func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("scrape-config", flag.ContinueOnError)
	server := flags.String("prometheus", "", "`file` with a Prometheus")
	monitor := flags.String("service-monitor", "", "`file` with a ServiceMonitor")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var prom monitoringv1.Prometheus
	var serviceMonitor monitoringv1.ServiceMonitor
	for path, into := range map[string]any{*server: &prom, *monitor: &serviceMonitor} {
		text, err := os.ReadFile(path) //nolint:gosec // what the flags name
		if err != nil {
			return err
		}
		// An unknown field would be lost, and nobody would see it.
		if err := yaml.UnmarshalStrict(text, into); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	generator, err := prometheus.NewConfigGenerator(slog.Default(), &prom, prometheus.WithEndpointSliceSupport())
	if err != nil {
		return err
	}
	name := serviceMonitor.Namespace + "/" + serviceMonitor.Name
	monitors := map[string]*monitoringv1.ServiceMonitor{name: &serviceMonitor}
	config, err := generator.GenerateServerConfiguration(&prom, monitors, nil, nil, nil,
		assets.NewStoreBuilder(nil, nil), nil, nil, nil, nil)
	if err != nil {
		return err
	}
	_, err = out.Write(config)
	return err
}
