{{/* Name of the application, in its label. */}}
{{- define "sfmctoken-operator.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 53 | trimSuffix "-" }}
{{- end }}

{{/* Name of the objects. It leaves 10 characters for what follows it in a Service's name. */}}
{{- define "sfmctoken-operator.fullname" -}}
{{- $name := include "sfmctoken-operator.name" . }}
{{- $made := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- .Values.fullnameOverride | default $made | trunc 53 | trimSuffix "-" }}
{{- end }}

{{- define "sfmctoken-operator.serviceAccountName" -}}
{{- $default := ternary (include "sfmctoken-operator.fullname" .) "default" .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default $default }}
{{- end }}

{{/* Labels by which the pods are selected. A Deployment's can't be changed. */}}
{{- define "sfmctoken-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sfmctoken-operator.name" . }}
app.kubernetes.io/instance: {{ quote .Release.Name }}
{{- end }}

{{/* Labels and annotations of an object: those of all, and its own. Takes a dict of root, labels and annotations. */}}
{{- define "sfmctoken-operator.metadata" -}}
{{- $labels := include "sfmctoken-operator.selectorLabels" .root | fromYaml }}
{{- $labels = merge $labels (dict
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service
) (.labels | default dict) .root.Values.commonLabels -}}
labels: {{- toYaml $labels | nindent 2 }}
{{- with merge dict (.annotations | default dict) .root.Values.commonAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A security context, without what OpenShift chooses. Takes a dict of root and context. */}}
{{- define "sfmctoken-operator.securityContext" -}}
{{- $adapt := .root.Values.openshift.adaptSecurityContext }}
{{- $isOpenShift := .root.Capabilities.APIVersions.Has "security.openshift.io/v1" }}
{{- if or (eq $adapt "force") (and (eq $adapt "auto") $isOpenShift) }}
{{- omit .context "runAsUser" "runAsGroup" "fsGroup" | toYaml }}
{{- else }}
{{- toYaml .context }}
{{- end }}
{{- end }}

{{/* What the operator's pods and the test's have in common. */}}
{{- define "sfmctoken-operator.pod" -}}
serviceAccountName: {{ include "sfmctoken-operator.serviceAccountName" . }}
automountServiceAccountToken: true
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 0 }}
{{- end }}
securityContext:
  {{- include "sfmctoken-operator.securityContext" (dict "root" . "context" .Values.podSecurityContext) | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- $caFile := or .Values.caFile.configMapName .Values.caFile.secretName }}
{{- if or $caFile .Values.extraVolumes }}
volumes:
{{- if $caFile }}
- name: ca-file
  {{- if and .Values.caFile.configMapName .Values.caFile.secretName }}
  {{- fail "caFile takes configMapName or secretName, not both" }}
  {{- else if .Values.caFile.configMapName }}
  configMap:
    name: {{ .Values.caFile.configMapName }}
  {{- else }}
  secret:
    secretName: {{ .Values.caFile.secretName }}
  {{- end }}
    items: # of a TLS Secret, not the private key
    - key: {{ .Values.caFile.key }}
      path: {{ .Values.caFile.key }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Image and security context, for each container. */}}
{{- define "sfmctoken-operator.image" -}}
image: {{ with .Values.image.registry }}{{ . }}/{{ end }}{{ .Values.image.repository }}
  {{- with .Values.image.digest }}@{{ . }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- $context := dict "root" . "context" .Values.containerSecurityContext }}
  {{- include "sfmctoken-operator.securityContext" $context | nindent 2 }}
{{- end }}

{{/* The operator's container, which the test has too. */}}
{{- define "sfmctoken-operator.container" -}}
{{ include "sfmctoken-operator.image" . }}
args:
- --leader-elect
{{- if .Values.metrics.enabled }}
- --metrics-bind-address=:8443
{{- end }}
{{- with .Values.watchNamespaces }}
- --watch-namespaces={{ join "," . }}
{{- end }}
{{- $caFile := or .Values.caFile.configMapName .Values.caFile.secretName }}
{{- if $caFile }}
- --ca-file=/ca-file/{{ .Values.caFile.key }}
{{- end }}
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- if or .Values.goMemLimit .Values.proxy.httpsProxy .Values.extraEnv }}
env:
{{- with .Values.goMemLimit }}
- name: GOMEMLIMIT
  value: {{ quote . }}
{{- end }}
{{- if .Values.proxy.httpsProxy }}
- name: HTTPS_PROXY
  value: {{ quote .Values.proxy.httpsProxy }}
- name: NO_PROXY # the kubelet puts the API server's address in
  value: {{ list "$(KUBERNETES_SERVICE_HOST)" .Values.proxy.noProxy | compact | join "," | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
ports:
{{- if .Values.metrics.enabled }}
- name: metrics
  containerPort: 8443
{{- end }}
- name: probes
  containerPort: 8081
{{- with .Values.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or $caFile .Values.extraVolumeMounts }}
volumeMounts:
{{- if $caFile }}
- name: ca-file
  mountPath: /ca-file
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where the operator's pods and the test's may connect to. */}}
{{- define "sfmctoken-operator.egress" -}}
{{- $ports := concat (list 443 6443 8443 16443) .Values.networkPolicy.extraEgressPorts }}
{{- with .Values.proxy.httpsProxy }}
{{- $usual := get (dict "http" 80 "https" 443 "socks5" 1080 "socks5h" 1080) (urlParse .).scheme }}
{{- $ports = append $ports (regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" | default $usual) }}
{{- end -}}
egress: # by port alone: Marketing Cloud's addresses change, and the API server's are those of its machines
- ports: # DNS, wherever it runs: cluster DNS pods or a cache on the node
  - port: 53
    protocol: UDP
  - port: 53
    protocol: TCP
- ports:
  {{- range toStrings $ports | uniq }}
  - port: {{ . }}
    protocol: TCP
  {{- end }}
{{- end }}
