# sfmctoken-operator. `make` alone shows what there is.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.PHONY: help demo test checks tools unit integration integration-guarded faults neighbours soak consumers comparison e2e e2e-image fuzz lint vulncheck gitops monitoring docs generate check-generate bench scale compat node image-local build chart release check-release run image install uninstall deploy undeploy install-yaml clean

IMAGE     ?= sfmctoken-operator:latest
PLATFORMS ?=
PUSH      ?=
CONFIG    ?= config/default
WITH      ?=
FUZZTIME  ?= 5000x
SOAK      ?= 1h
K8S       ?= 1.32
REGISTRY  ?= ghcr.io/sfmctoken
TAG        = $(shell git describe --tags --exact-match 2> /dev/null)
REVISION   = $(shell git rev-parse HEAD)
VERSION    = $(or $(TAG),v0.0.0-g$(shell git rev-parse --short HEAD))
BIN       := $(CURDIR)/.cache/bin
KUBECTL   ?= kubectl
MODULES   := . hack/localcluster hack/tools/chart-docs hack/tools/release test test/flux
CHART     := charts/sfmctoken-operator
INTEGRATION_TOOLS := $(addprefix $(BIN)/,helm helm3 helm-unittest promtool)
CHECK_TOOLS := golangci-lint kustomize actionlint govulncheck controller-gen crd-ref-docs chart-docs
GITOPS_TOOLS := $(addprefix $(BIN)/,source-controller kustomize-controller sops age-keygen)
RULES     := config/prometheus-rules
# What the modules share is compiled once: they are built with the same flags, and hold the same versions of it.
export CGO_ENABLED ?= 0
export GOFLAGS     ?= -trimpath
# Compilers that collect less garbage end sooner. Tests are not to inherit it.
QUICK     := GOGC=400
# It works with MutatingAdmissionPolicy v1.
NOT_ON_OLDER := TestAPolicyThatChangesEveryWriteIsNamedAndReadyStaysTrue

help: ## Show this.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ What most people want

demo: control-plane ## Show the operator at work on a control plane of its own; cleans up after itself.
	cd test && go run ./demo

test: checks faults fuzz ## Run every check and test that needs no node (that is e2e).

##@ Pieces of test

checks: check-generate lint unit integration ## Run what measures nothing, so that it may run beside e2e.

tools: $(BIN)/localcluster $(INTEGRATION_TOOLS) $(addprefix $(BIN)/,$(CHECK_TOOLS)) ## Build the tools that the tests need.

unit: ## Run the tests that need no control plane.
	CGO_ENABLED=1 $(QUICK) go test -race -exec 'env -u GOGC' ./api/... ./internal/... ./hack/...
	go test ./cmd/...

integration: control-plane $(INTEGRATION_TOOLS) ## Run the tests against a real control plane.
	cd hack/localcluster && go test -count=1 ./...
	cd test && go test -count=1 -timeout 30m .

integration-guarded: control-plane $(INTEGRATION_TOOLS) ## Run them where owner references are guarded, as on OpenShift.
	cd test && API_SERVER_FLAGS=--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement go test -count=1 -timeout 30m .

faults: control-plane ## Run the fault suite, with two minutes of faults at random and bad neighbours of a quarter of their size.
	cd test && go test -count=1 -timeout 45m -v ./faults -soak 2m

neighbours: control-plane ## Run the bad neighbours of the fault suite in their full size.
	cd test && go test -count=1 -timeout 60m ./faults -run Neighbours -neighbours 1 -v

soak: control-plane ## Run faults at random for SOAK (1h).
	cd test && go test -count=1 -timeout 0 ./faults -run Soak -soak $(SOAK) -v

consumers: control-plane ## Run the examples of config/samples/consumers over several refreshes (needs curl, python3, node, npm and a JDK, which root on Debian gets).
	cd test && go test -count=1 -timeout 30m -v ./consumers

e2e: $(if $(KUBECONFIG),,consumers) ## Run the examples of consumers, then the image on a node, with consumers in pods (needs root on Linux with Debian's packages), or on the cluster that KUBECONFIG names.
	cd test && $(if $(KUBECONFIG),KUBECONFIG=$(abspath $(KUBECONFIG))) go test -count=1 -timeout 45m -v ./e2e $(if $(KUBECONFIG),-run Consumer)

e2e-image: ## Write the image that e2e needs beside the operator's, to be loaded into a cluster of your own.
	cd test && go run ./e2e/image

gitops: control-plane $(GITOPS_TOOLS) ## Run config/argocd by Argo CD's own engine, and config/samples/gitops by Flux's controllers.
	cd test/argocd && go vet ./... && go test -count=1 ./...
	cd test/flux && go vet ./... && go test -count=1 -timeout 30m -v ./...

monitoring: control-plane $(addprefix $(BIN)/,prometheus scrape-config) .cache/prometheus/ui/static ## Have a real Prometheus scrape the operator, run alerts and the dashboard's queries, and draw these into dist/dashboard (needs npm and chromium).
	cd test && go test -count=1 -timeout 60m -v ./monitoring

docs: $(BIN)/hugo hack/site/node_modules ## Build the site of docs/ into dist/site, follow its links, and draw it in two widths (needs npm and chromium).
	$(BIN)/hugo --source hack/site --destination $(CURDIR)/dist/site --cleanDestinationDir --noBuildLock --panicOnWarning
	cd test && go test -count=1 -v ./site

comparison: control-plane $(BIN)/external-secrets ## Run a CronJob, External Secrets and the operator beside each other for half an hour, and print the README's table of them (needs curl).
	cd test && go test -count=1 -timeout 90m -v ./comparison

fuzz: ## Fuzz what reads foreign input, FUZZTIME (5000x, that many inputs) each.
	@for target in $$(grep -rlE '^func Fuzz' --include='*_test.go' internal | sort); do \
	  for name in $$(grep -oE '^func Fuzz\w+' $$target | cut -c6-); do \
	    echo "$$name"; go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x ./$$(dirname $$target) || exit 1; \
	  done; done

lint: vulncheck $(addprefix $(BIN)/,golangci-lint kustomize actionlint) ## Lint Go code, manifests and workflows, and look for known vulnerabilities.
	@$(BIN)/actionlint -no-color
	@for module in $(MODULES); do (cd $$module && echo "lint $$module" && $(QUICK) $(BIN)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...) || exit 1; done
	@for config in $$(dirname $$(grep -rL 'kind: Component' config --include=kustomization.yaml)); do $(BIN)/kustomize build $$config > /dev/null || exit 1; done

vulncheck: $(BIN)/govulncheck ## Look for known vulnerabilities, if the Go vulnerability database (or VULNDB, a mirror) can be reached.
	@if $(GOVULNCHECK) -version | grep '^DB updated' > /dev/null; then $(GOVULNCHECK) ./...; \
	else echo "NOT CHECKED for known vulnerabilities: the Go vulnerability database can't be reached"; fi

check-generate: generate ## Fail if generated files are out of date.
	@git diff --exit-code -- api config docs/reference/api.md $(CHART) || (echo "commit what 'make generate' changed" && exit 1)

bench: control-plane ## Measure the operator beside the least that its work can cost.
	cd test && go run ./bench

scale: control-plane ## Measure 100, 1,000 and 10,000 SFMCTokens, with two replicas, through three lives.
	cd test && go run ./bench -scale 10000

compat: $(BIN)/localcluster $(INTEGRATION_TOOLS) ## Run the tests against a control plane of Kubernetes K8S (1.33, or 1.33.4).
	assets=$$($(BIN)/localcluster build $(K8S)) && cd test && KUBEBUILDER_ASSETS=$$assets go test -count=1 -timeout 40m -skip '^$(NOT_ON_OLDER)$$' .

image-local: $(BIN)/localcluster ## Build the image without docker, for a node of this machine (needs root on Linux with Debian's packages).
	$(BIN)/localcluster build-image

node: $(BIN)/localcluster ## Run a cluster with a node until Ctrl-C (needs root on Linux with Debian's packages).
	$(BIN)/localcluster up-node

##@ Working on it

generate: $(BIN)/controller-gen $(BIN)/crd-ref-docs $(BIN)/chart-docs ## Make deepcopy, CRD, RBAC and docs/reference/api.md from the Go types, the plain file of alerts, and what the chart has of them.
	$(BIN)/controller-gen object paths=./api/...
	$(BIN)/controller-gen crd paths=./api/... output:crd:dir=config/crd/bases
	$(BIN)/controller-gen rbac:roleName=sfmctoken-operator paths=./internal/controller/... output:rbac:dir=config/rbac
	$(BIN)/crd-ref-docs --source-path=api --config=hack/tools/crd-ref-docs/config.yaml --templates-dir=hack/tools/crd-ref-docs/templates --renderer=markdown --output-path=docs/reference/api.md --log-level=ERROR
	cp config/crd/bases/*.yaml $(CHART)/files/crds/
	{ echo '# Made by make generate, of prometheus_rule.yaml.'; sed '1,/^spec:/d; s/^  //' $(RULES)/prometheus_rule.yaml; } > $(RULES)/alerts.yaml
	cp config/rbac/role.yaml $(RULES)/prometheus_rule.yaml $(CHART)/files/
	cp config/dashboard/sfmctoken-operator.json $(CHART)/files/dashboard.json
	cp $(filter-out %/kustomization.yaml,$(wildcard config/components/admission-policies/*.yaml)) $(CHART)/files/admission-policies/
	$(BIN)/chart-docs $(CHART)

build: ## Build the operator and the kubectl plugin into bin/.
	go build -o bin/sfmctoken-operator ./cmd
	go build -o bin/kubectl-sfmctoken ./cmd/kubectl-sfmctoken

chart: $(BIN)/helm $(BIN)/helm-unittest ## Check the Helm chart and package it into dist/.
	$(BIN)/helm lint --strict $(CHART)
	$(BIN)/helm-unittest --strict $(CHART)
	$(BIN)/helm package $(CHART) --destination dist

release: $(addprefix $(BIN)/,goreleaser cyclonedx-gomod helm kustomize release) ## Make all that a release of the checked out tag has, into dist/release, and publish nothing.
	PATH="$(BIN):$$PATH" GORELEASER_CURRENT_TAG=$(VERSION) REVISION=$(REVISION) COMMITTED=$$(git log -1 --format=%ct) goreleaser release --clean --skip=publish,announce $(if $(TAG),,--snapshot)
	mkdir -p dist/release && cp -r $(CHART) dist/chart && sed -i 's|^  registry: ""|  registry: $(REGISTRY)|' dist/chart/values.yaml
	$(BIN)/helm package dist/chart --version $(VERSION:v%=%) --app-version $(VERSION) --destination dist/release
	$(MAKE) install-yaml IMAGE=$(REGISTRY)/sfmctoken-operator:$(VERSION) && cp dist/install.yaml dist/release/
	$(BIN)/kustomize build config/crd > dist/release/crds.yaml
	$(BIN)/release $(VERSION) $(REVISION) $(REGISTRY)/sfmctoken-operator

check-release: release $(addprefix $(BIN)/,crane krew kubeconform) ## Make a release and use each part of it, on a node (needs root on Linux with Debian's packages).
	cd test && go test -count=1 -timeout 45m -v ./release

run: ## Run the operator here, against the cluster of the current kubeconfig.
	go run ./cmd

image: ## Build IMAGE (needs docker buildx); with PLATFORMS=linux/amd64,linux/arm64 PUSH=1 for both, pushed.
	docker buildx build --build-arg VERSION=$(shell git describe --tags --always --dirty) --build-arg REVISION=$(REVISION) $(if $(PLATFORMS),--platform $(PLATFORMS)) $(if $(PUSH),--push,--load) --tag $(IMAGE) .

clean: ## Remove what was built; the next run builds the control plane again.
	rm -rf .cache bin dist

##@ On a cluster (of the current kubeconfig)

install: ## Apply the CRD alone.
	$(KUBECTL) apply --server-side -k config/crd

uninstall: ## Delete the CRD, and with it every SFMCToken and every Secret that is not retained.
	$(KUBECTL) delete --ignore-not-found -k config/crd

deploy: install-yaml ## Apply everything, with IMAGE.
	$(KUBECTL) apply --server-side -f dist/install.yaml

undeploy: ## Delete everything, every SFMCToken and every Secret that is not retained.
	$(KUBECTL) delete --ignore-not-found -k config/default

install-yaml: $(BIN)/kustomize ## Render CONFIG (config/default) with IMAGE, WITH=admission-policies if wanted, into dist/install.yaml.
	mkdir -p dist && printf '%s\n' resources: '- ../$(CONFIG)' components: $(WITH:%='- ../config/components/%') > dist/kustomization.yaml
	cd dist && $(BIN)/kustomize edit set image sfmctoken-operator=$(IMAGE) && $(BIN)/kustomize build . > install.yaml

GOVULNCHECK = $(BIN)/govulncheck $(if $(VULNDB),-db $(VULNDB))

# Tools and the control plane are built from source at pinned versions, once.
.PHONY: control-plane
control-plane: $(BIN)/localcluster
	$(BIN)/localcluster build > /dev/null

$(BIN)/localcluster: $(wildcard hack/localcluster/*.go hack/localcluster/cmd/localcluster/*.go) hack/localcluster/go.mod
	$(QUICK) go build -C hack/localcluster -o $@ ./cmd/localcluster

tool_controller-gen = sigs.k8s.io/controller-tools/cmd/controller-gen
tool_kustomize      = sigs.k8s.io/kustomize/kustomize/v5
tool_crd-ref-docs   = github.com/elastic/crd-ref-docs
tool_chart-docs     = .
tool_goreleaser     = github.com/goreleaser/goreleaser/v2
tool_cyclonedx-gomod = github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
tool_actionlint     = github.com/rhysd/actionlint/cmd/actionlint
tool_crane          = github.com/google/go-containerregistry/cmd/crane
tool_krew           = sigs.k8s.io/krew/cmd/krew
tool_kubeconform    = github.com/yannh/kubeconform/cmd/kubeconform
tool_release        = .
tool_helm           = helm.sh/helm/v4/cmd/helm
tool_helm3          = helm.sh/helm/v3/cmd/helm
tool_helm-unittest  = github.com/helm-unittest/helm-unittest/cmd/helm-unittest
tool_promtool       = -tags remove_all_sd github.com/prometheus/prometheus/cmd/promtool
tool_prometheus     = -tags remove_all_sd,enable_kubernetes_sd github.com/prometheus/prometheus/cmd/prometheus
tool_scrape-config  = .
tool_source-controller = github.com/fluxcd/source-controller
tool_kustomize-controller = github.com/fluxcd/kustomize-controller
tool_hugo           = github.com/gohugoio/hugo
tool_external-secrets = github.com/external-secrets/external-secrets
tool_sops           = github.com/getsops/sops/v3/cmd/sops
tool_age-keygen     = filippo.io/age/cmd/age-keygen
tool_golangci-lint  = github.com/golangci/golangci-lint/v2/cmd/golangci-lint
tool_govulncheck    = golang.org/x/vuln/cmd/govulncheck

$(BIN)/chart-docs: hack/tools/chart-docs/main.go
$(BIN)/release: hack/tools/release/main.go
$(BIN)/scrape-config: hack/tools/scrape-config/main.go

# Several of one module are of one version, and what they share is compiled once.
$(addprefix $(BIN)/,helm3 helm-unittest): hack/tools/helm/go.mod
	$(QUICK) go build -C hack/tools/helm -o $@ $(tool_$(@F))

hack/site/node_modules: hack/site/package-lock.json
	cd hack/site && npm ci --silent --no-audit --no-fund && touch node_modules

.cache/prometheus/ui/static: hack/tools/prometheus/go.mod hack/tools/prometheus/ui.sh
	hack/tools/prometheus/ui.sh .cache/prometheus/ui

$(BIN)/promtool: hack/tools/prometheus/go.mod
	$(QUICK) go build -C hack/tools/prometheus -o $@ $(tool_$(@F))

# They encrypt with the versions that kustomize-controller decrypts with.
$(BIN)/sops $(BIN)/age-keygen: hack/tools/kustomize-controller/go.mod
	$(QUICK) go build -C hack/tools/kustomize-controller -o $@ $(tool_$(@F))

$(BIN)/%: hack/tools/%/go.mod
	$(QUICK) go build -C hack/tools/$* -o $@ $(tool_$*)
