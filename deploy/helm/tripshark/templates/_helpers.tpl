{{- define "tripshark.fullname" -}}
{{- if .Values.fullnameOverride -}}{{ .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tripshark.labels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "tripshark.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tripshark.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tripshark.secret" -}}
{{- default (printf "%s-webhook" (include "tripshark.fullname" .)) .Values.webhook.existingSecret -}}
{{- end -}}

{{- define "tripshark.priorityClass" -}}
{{- default (include "tripshark.fullname" .) .Values.priorityClass.name -}}
{{- end -}}

{{/* What the chart decides; `config` is merged over it. */}}
{{- define "tripshark.common" -}}
listen: 0.0.0.0:2803
data: /var/lib/tripshark
kubernetes:
  enabled: "on"
ingest:
  auth:
    bearer_files: [/etc/tripshark/secret/token]
{{- if .Values.tls.existingSecret }}
tls:
  cert: /etc/tripshark/tls/tls.crt
  key: /etc/tripshark/tls/tls.key
  {{- if .Values.tls.clientCA }}
  client_ca: /etc/tripshark/tls/ca.crt
  {{- end }}
{{- else if not .Values.tls.required }}
web:
  cleartext: true
{{- end }}
{{- end -}}

{{- define "tripshark.nodeConfig" -}}
{{- $base := include "tripshark.common" . | fromYaml -}}
{{- $paths := dict "recorder" (dict "socket" "/run/tripshark/recorder/recorder.sock")
  "analyst" (dict "socket" "/run/tripshark/analyst/analyst.sock")
  "containers" (dict "enabled" "on" "socket" "/run/tripshark/recorder/scout.sock" "sockets" .Values.runtime.sockets) -}}
{{- if .Values.indicators.existingConfigMap -}}{{- $_ := set $paths "indicators" (list "/etc/tripshark/indicators") -}}{{- end -}}
{{- mustMergeOverwrite (dict) $base $paths (deepCopy .Values.config) | toYaml -}}
{{- end -}}

{{/* What recorder and analyst are told: nothing that is secret. */}}
{{- define "tripshark.localConfig" -}}
{{- $all := include "tripshark.nodeConfig" . | fromYaml -}}
{{- range list "ingest" "tls" "store" "hub" "listen" "signin" "indicators" -}}{{- $_ := unset $all . -}}{{- end -}}
{{- $all | toYaml -}}
{{- end -}}

{{- define "tripshark.hubConfig" -}}
{{- $base := include "tripshark.common" . | fromYaml -}}
{{- $_ := set $base "analyst" (dict "socket" "/run/tripshark/analyst/analyst.sock") -}}
{{- $shared := dict -}}
{{- range list "store" "hub" "kubernetes" "web" "ingest" "tls" "signin" "reading" "bounds" -}}
{{- if get $.Values.config . -}}{{- $_ := set $shared . (deepCopy (get $.Values.config .)) -}}{{- end -}}
{{- end -}}
{{- mustMergeOverwrite (dict) $base $shared (deepCopy .Values.hub.config) | toYaml -}}
{{- end -}}

{{/* What the hub's analyst is told: nothing that is secret. */}}
{{- define "tripshark.hubLocalConfig" -}}
{{- $all := include "tripshark.hubConfig" . | fromYaml -}}
{{- range list "ingest" "tls" "store" "hub" "listen" "signin" -}}{{- $_ := unset $all . -}}{{- end -}}
{{- $all | toYaml -}}
{{- end -}}

{{/* A container that may do nothing. */}}
{{- define "tripshark.nothing" -}}
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "tripshark.token" -}}
projected:
  defaultMode: 0440
  sources:
    - serviceAccountToken: {path: token, expirationSeconds: 3607}
    - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
    - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end -}}

{{- define "tripshark.probe" -}}
httpGet:
  path: /healthz
  port: http
  scheme: {{ ternary "HTTPS" "HTTP" (ne .Values.tls.existingSecret "") }}
timeoutSeconds: 5
{{- end -}}
