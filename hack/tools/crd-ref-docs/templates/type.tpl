{{- define "type" -}}
{{- if markdownShouldRenderType . }}
### {{ .Name }}

{{ .Doc }}
{{ if .IsAlias }}
A {{ markdownRenderTypeLink .UnderlyingType }}.<br />{{ template "rules" . }}
{{ end }}
{{- with .SortedReferences }}
Used in{{ range $i, $type := . }}{{ if $i }},{{ end }} {{ markdownRenderTypeLink $type }}{{ end }}.
{{ end }}
{{- if .Members }}
| Field | Description | Rules |
| --- | --- | --- |
{{ if .GVK -}}
| `apiVersion` | `{{ .GVK.Group }}/{{ .GVK.Version }}` | |
| `kind` | `{{ .GVK.Kind }}` | |
{{ end -}}
{{ range .Members -}}
| `{{ .Name }}` _{{ regexReplaceAll `\[Duration\][^ ]*` (markdownRenderType .Type) "duration" }}_ | {{ markdownRenderFieldDoc .Doc | replace "<br />" " " }} | {{ template "rules" . }} |
{{ end }}{{ end }}
{{- if .EnumValues }}
| Value | Meaning |
| --- | --- |
{{ range .EnumValues -}}
| `{{ .Name }}` | {{ markdownRenderFieldDoc .Doc | replace "<br />" " " | trim }} |
{{ end }}{{ end }}
{{- end }}
{{- end -}}
