// Package monitoring has a real Prometheus scrape the operator as the shipped ServiceMonitor says, evaluate the shipped
// alerts and run the queries of the shipped dashboard, while Marketing Cloud fails and after.
package monitoring

import (
	"os"
	"testing"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

var shared harness.Shared

func TestMain(m *testing.M) {
	os.Exit(harness.RunTests(&harness.Log{}, func(started harness.Shared) int {
		shared = started
		return m.Run()
	}))
}
