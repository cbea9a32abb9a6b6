{{- /* What the API server checks, in words: a CEL rule shows as the message that its violation gives. */ -}}
{{- define "rules" -}}
{{- $rules := list -}}
{{- range .Validation -}}
  {{- if hasPrefix "Required:" . -}}{{- $rules = prepend $rules "required" -}}
  {{- else if not (or (hasPrefix "Optional:" .) (hasPrefix "Type:" .)) -}}{{- $rules = append $rules . -}}
  {{- end -}}
{{- end -}}
{{- range index .Markers "kubebuilder:validation:XValidation" -}}{{- $rules = append $rules .Message -}}{{- end -}}
{{- range $i, $rule := $rules }}{{ if $i }}<br />{{ end }}{{ markdownRenderFieldDoc $rule }}{{ end -}}
{{- end -}}
