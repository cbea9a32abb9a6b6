package monitoring

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const (
	serviceMonitor = "config/prometheus/service_monitor.yaml"
	metricsService = "sfmctoken-operator-metrics"
	// mountedToken is where a pod finds the token of its ServiceAccount, and where the ServiceMonitor looks for it.
	mountedToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
)

// prometheus is a running Prometheus.
type prometheus struct{ address string }

// startPrometheus runs Prometheus with a configuration that the Prometheus operator's own generator makes of the
// shipped ServiceMonitor. Four things differ from a cluster with pods: no kubelet mounts a token, so it lies in another
// file; the API server is named here, not by the pod's environment; the rules are those of the plain file, not of a
// ConfigMap; and no reloader puts in which of Prometheus' pods this is.
func (w *world) startPrometheus() {
	w.t.Helper()
	identity, err := shared.Cluster.ServiceAccountConfig(w.ctx, "monitoring", "prometheus")
	w.Expect(err).NotTo(HaveOccurred())
	dir := w.t.TempDir()
	token, ca := filepath.Join(dir, "token"), filepath.Join(dir, "ca.crt")
	w.Expect(os.WriteFile(token, []byte(identity.BearerToken), 0o600)).To(Succeed())
	w.Expect(os.WriteFile(ca, identity.CAData, 0o600)).To(Succeed())
	config := w.scrapeConfig(dir, fmt.Sprintf(`
apiVersion: monitoring.coreos.com/v1
kind: Prometheus
metadata: {namespace: monitoring, name: prometheus}
spec:
  scrapeInterval: 5s
  scrapeTimeout: 5s
  evaluationInterval: 30s
  serviceDiscoveryRole: EndpointSlice
  apiserverConfig: {host: '%s', authorization: {credentialsFile: %s}, tlsConfig: {caFile: %s}}
`, identity.Host, mountedToken, ca))
	config["global"].(map[string]any)["extra_scrape_metrics"] = true // for the size of a scrape
	config["rule_files"] = []string{harness.Path("config/prometheus-rules/alerts.yaml")}
	text, err := yaml.Marshal(config)
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(string(text)).To(ContainSubstring(mountedToken))
	whole := strings.NewReplacer(mountedToken, token, "$(SHARD)", "0", "$(POD_NAME)", "prometheus-0").Replace(string(text))
	file := filepath.Join(dir, "prometheus.yml")
	w.Expect(os.WriteFile(file, []byte(whole), 0o600)).To(Succeed())

	address, err := harness.FreeAddress()
	w.Expect(err).NotTo(HaveOccurred())
	run := exec.Command(tool("prometheus"), //nolint:gosec // built by make
		"--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address)
	run.Dir = harness.Path(".cache", "prometheus", "ui") // it looks for its pages there
	w.start(run)
	w.prometheus = prometheus{address}
}

// tool is a program that make monitoring has built.
func tool(name string) string { return harness.Path(".cache", "bin", name) }

// scrapeConfig is prometheus.yml for a Prometheus, as the Prometheus operator makes it.
func (w *world) scrapeConfig(dir, object string) (config map[string]any) {
	w.t.Helper()
	file := filepath.Join(dir, "prometheus.yaml")
	w.Expect(os.WriteFile(file, []byte(object), 0o600)).To(Succeed())
	generate := exec.CommandContext(w.ctx, tool("scrape-config"), //nolint:gosec // built by make
		"-prometheus", file, "-service-monitor", harness.Path(serviceMonitor))
	generate.Stderr = os.Stderr
	out, err := generate.Output()
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(yaml.Unmarshal(out, &config)).To(Succeed())
	return config
}

// machineAddress is an address of this machine that an EndpointSlice may have: one on loopback is refused.
func (w *world) machineAddress() string {
	w.t.Helper()
	addresses, err := net.InterfaceAddrs()
	w.Expect(err).NotTo(HaveOccurred())
	for _, address := range addresses {
		if ip, isIP := address.(*net.IPNet); isIP && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			return ip.IP.String()
		}
	}
	w.t.Fatal("this machine has no IPv4 address but loopback")
	return ""
}

// pods are those that the shipped Deployment has: without a node they wait, and the replicas run as processes.
func (w *world) pods() (names []string) {
	w.t.Helper()
	w.Eventually(func() ([]string, error) {
		var pods corev1.PodList
		err := shared.Admin.List(w.ctx, &pods, client.InNamespace(harness.SystemNamespace))
		names = nil
		for i := range pods.Items {
			names = append(names, pods.Items[i].Name)
		}
		return names, err
	}).Should(HaveLen(replicas))
	return names
}

// discover has Prometheus find a replica behind the shipped Service. The EndpointSlice controller would write this if
// the pod had an address; here each replica has a port of its own.
func (w *world) discover(pod, address string) {
	w.t.Helper()
	host, port, err := net.SplitHostPort(address)
	w.Expect(err).NotTo(HaveOccurred())
	number, err := strconv.ParseInt(port, 10, 32)
	w.Expect(err).NotTo(HaveOccurred())
	w.create(&discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: harness.SystemNamespace, Name: metricsService + "-" + pod,
			Labels: map[string]string{discoveryv1.LabelServiceName: metricsService, discoveryv1.LabelManagedBy: "test"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses:  []string{host},
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: harness.SystemNamespace, Name: pod},
		}},
		Ports: []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To(int32(number))}},
	})
}

// get asks Prometheus' API and decodes the data of its answer.
func (p prometheus) get(path string, into any) error {
	response, err := http.Get("http://" + p.address + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer := struct {
		Error string `json:"error"`
		Data  any    `json:"data"`
	}{Data: into}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %s: %w", path, response.Status, err)
	}
	if answer.Error != "" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return nil
}

// series is one of an answer, with its value now.
type series struct {
	labels map[string]string
	value  float64
}

// query runs PromQL, now.
func (p prometheus) query(expr string) (found []series, err error) {
	var data struct {
		Result []struct {
			Metric map[string]string `json:"metric"`
			Value  [2]any            `json:"value"`
		} `json:"result"`
	}
	if err := p.get("/api/v1/query?query="+url.QueryEscape(expr), &data); err != nil {
		return nil, err
	}
	for _, one := range data.Result {
		value, err := strconv.ParseFloat(fmt.Sprint(one.Value[1]), 64)
		if err != nil {
			return nil, err
		}
		found = append(found, series{maps.Clone(one.Metric), value})
	}
	return found, nil
}

// number is the value of the one series that a query finds; NaN if there are none or more.
func (p prometheus) number(expr string) float64 {
	if found, err := p.query(expr); err == nil && len(found) == 1 {
		return found[0].value
	}
	return math.NaN()
}

// alert is an alert by what tells it from others.
type alert struct{ name, namespace, token, host string }

// alerts are those that a query finds in Prometheus' own series of them.
func (p prometheus) alerts(expr string) (found []alert, err error) {
	all, err := p.query(expr)
	for _, one := range all {
		l := one.labels
		found = append(found, alert{l["alertname"], l["namespace"], l["name"], l["auth_host"]})
	}
	return found, err
}

// firing are the alerts that fire now.
func (p prometheus) firing() ([]alert, error) { return p.alerts(`ALERTS{alertstate="firing"}`) }
