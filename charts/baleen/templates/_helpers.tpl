{{/* The part that an argument is about: (dict "root" $ "component" "gateway"). Names are the same in every release, since
roles, leases and the runtimes' network policies know them; hence one release in a cluster. */}}
{{- define "baleen.name" -}}
baleen-{{ .component }}
{{- end }}

{{/* Labels by which pods are found; they can never change. */}}
{{- define "baleen.selectorLabels" -}}
app.kubernetes.io/name: {{ include "baleen.name" . }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "baleen.labels" -}}
{{ include "baleen.selectorLabels" . }}
{{ include "baleen.commonLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "baleen.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: baleen
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image's whole name: (dict "root" $ "image" .Values.gateway.image). */}}
{{- define "baleen.image" -}}
{{- $name := .image.repository -}}
{{- with .root.Values.image.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $name .image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{/* The address that means every address. */}}
{{- define "baleen.anyAddress" -}}
{{ ternary "::" "0.0.0.0" (eq .Values.ipFamily "IPv6") }}
{{- end }}

{{/* Settings as environment variables: (dict "prefix" "BALEEN_" "settings" dict). Lists are joined, mappings are JSON;
what is null is left to the process. */}}
{{- define "baleen.environment" -}}
{{- $variables := dict }}
{{- range $name, $value := .settings }}
{{- if not (kindIs "invalid" $value) }}
{{- $text := $value }}
{{- if kindIs "slice" $value }}{{ $text = join "," $value }}{{ else if not (kindIs "string" $value) }}{{ $text = toJson $value }}{{ end }}
{{- $_ := set $variables (printf "%s%s" $.prefix (snakecase $name | upper)) $text }}
{{- end }}
{{- end }}
{{- toYaml $variables }}
{{- end }}

{{/* What the Pod Security Standard `restricted` asks for, and a read-only root. */}}
{{- define "baleen.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "baleen.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- with .Values.pods.runAsUser }}
runAsUser: {{ . | int64 }}
{{- end }}
{{- with .Values.pods.runAsGroup }}
runAsGroup: {{ . | int64 }}
{{- end }}
{{- with .Values.pods.fsGroup }}
fsGroup: {{ . | int64 }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- end }}

{{- define "baleen.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* What a part's pods have in common up to their containers: (dict "root" $ "component" "gateway" "values" .Values.gateway). */}}
{{- define "baleen.podMetadata" -}}
labels:
  {{- include "baleen.labels" . | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  # Pods read their settings once: new ones take new pods.
  checksum/settings: {{ include (printf "baleen.%sSettings" .component) .root | sha256sum }}
  {{- if .root.Values.metrics.scrapeAnnotations }}
  prometheus.io/scrape: "true"
  prometheus.io/port: {{ ternary "9091" "8080" (eq .component "gateway") | quote }}
  prometheus.io/path: /metrics
  {{- end }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "baleen.podSpec" -}}
serviceAccountName: {{ include "baleen.name" . }}
automountServiceAccountToken: true
enableServiceLinks: false
{{- include "baleen.pullSecrets" .root }}
securityContext:
  {{- include "baleen.podSecurity" .root | nindent 2 }}
terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .values.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range .values.topologySpreadConstraints }}
- {{- toYaml . | nindent 2 }}
  labelSelector:
    matchLabels:
      {{- include "baleen.selectorLabels" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- if .root.Values.models.fetch.enabled }}
initContainers:
{{- include "baleen.fetchContainer" .root | nindent 0 }}
{{- end }}
{{- end }}

{{/* Probes: the times of an HTTP service whose liveness is cheap and whose readiness must be fresh. */}}
{{- define "baleen.probes" -}}
startupProbe:
  httpGet: {path: /health, port: http}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /health, port: http}
  periodSeconds: 30
  timeoutSeconds: 10
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /ready, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}

{{/* Where `baleen models fetch` puts files below its cache. */}}
{{- define "baleen.modelFiles" -}}
/models/baleen/models
{{- end }}

{{- define "baleen.fetchContainer" -}}
- name: fetch
  image: {{ include "baleen.image" (dict "root" . "image" .Values.models.fetch.image) }}
  imagePullPolicy: {{ .Values.models.fetch.image.pullPolicy }}
  command: {{ concat (list "baleen" "models" "fetch") .Values.models.fetch.names | toJson }}
  env:
  - {name: XDG_CACHE_HOME, value: /models}
  - {name: HOME, value: /tmp}
  {{- with .Values.models.fetch.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  resources:
    {{- toYaml .Values.models.fetch.resources | nindent 4 }}
  securityContext:
    {{- include "baleen.containerSecurity" . | nindent 4 }}
  volumeMounts:
  - {name: models, mountPath: /models}
  - {name: temporary, mountPath: /tmp}
{{- end }}

{{- define "baleen.volumes" -}}
- name: temporary
  emptyDir: {sizeLimit: {{ .Values.pods.temporarySize }}}
- name: models
  {{- if eq .Values.models.storage.type "PersistentVolumeClaim" }}
  persistentVolumeClaim: {claimName: {{ .Values.models.storage.existingClaim | default "baleen-models" }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ .Values.models.storage.size }}}
  {{- end }}
{{- end }}

{{- define "baleen.volumeMounts" -}}
- {name: temporary, mountPath: /tmp}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}

{{/* What autoscalers scale. */}}
{{- define "baleen.gatewayKind" -}}
{{ ternary "StatefulSet" "Deployment" .Values.gateway.state.persistent }}
{{- end }}

{{/* What API servers call the webhooks, and their certificate names. */}}
{{- define "baleen.webhookName" -}}
baleen-operator-webhook.{{ .Release.Namespace }}.svc
{{- end }}

{{- define "baleen.webhookMetadata" -}}
labels:
  {{- include "baleen.labels" (dict "root" . "component" "operator-webhook") | nindent 2 }}
{{- if ne .Values.webhooks.certificate.type "Managed" }}
annotations:
  cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/baleen-webhook
{{- end }}
{{- end }}

{{/* How a webhook is asked: (dict "root" $ "path" "/pods"), within `seconds`. Whom to trust is said by whoever makes the certificate. */}}
{{- define "baleen.webhookClient" -}}
admissionReviewVersions: [v1]
sideEffects: None
matchPolicy: Equivalent
timeoutSeconds: {{ .seconds | default 5 }}
clientConfig:
  service: {namespace: {{ .root.Release.Namespace }}, name: baleen-operator-webhook, port: 443, path: {{ .path }}}
{{- end }}
