{{/* What operator and gateways have beside their pods: (dict "root" $ "component" … "values" …). */}}
{{- define "baleen.extras" -}}
{{- $kind := ternary (include "baleen.gatewayKind" .root) "Deployment" (eq .component "gateway") }}
{{- if .values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "baleen.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "baleen.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  # A pod that serves nobody must not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "baleen.selectorLabels" . | nindent 6 }}
{{- end }}
{{- if .values.verticalPodAutoscaler.enabled }}
---
apiVersion: autoscaling.k8s.io/v1
kind: VerticalPodAutoscaler
metadata:
  name: {{ include "baleen.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "baleen.labels" . | nindent 4 }}
spec:
  targetRef: {apiVersion: apps/v1, kind: {{ $kind }}, name: {{ include "baleen.name" . }}}
  updatePolicy: {updateMode: "Off"}
  resourcePolicy:
    containerPolicies:
    - containerName: "*"
      minAllowed:
        {{- toYaml .values.verticalPodAutoscaler.minAllowed | nindent 8 }}
      maxAllowed:
        {{- toYaml .values.verticalPodAutoscaler.maxAllowed | nindent 8 }}
{{- end }}
{{- end }}
