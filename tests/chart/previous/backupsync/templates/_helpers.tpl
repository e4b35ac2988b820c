{{/* The chart's name, as a label value. */}}
{{- define "backupsync.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of every object of this release: at most 50 characters, so that the longest suffix (-aggregate-to-edit) fits
     into the 63 of a DNS label. */}}
{{- define "backupsync.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "backupsync.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What a Deployment selects its pods by: never changed between versions. */}}
{{- define "backupsync.selectorLabels" -}}
app.kubernetes.io/name: {{ include "backupsync.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* Labels of every object. */}}
{{- define "backupsync.labels" -}}
{{- $own := dict
      "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
      "app.kubernetes.io/version" .Chart.AppVersion
      "app.kubernetes.io/managed-by" .Release.Service -}}
{{- toYaml (merge (include "backupsync.selectorLabels" . | fromYaml) $own .Values.commonLabels) -}}
{{- end -}}

{{/* metadata of an object: (list $ NAME [NAMESPACE [ANNOTATIONS [LABELS]]]); an empty namespace means none. */}}
{{- define "backupsync.metadata" -}}
{{- $root := index . 0 -}}
{{- $own := ternary (index . (min 3 (sub (len .) 1) | int)) dict (gt (len .) 3) -}}
{{- $extra := ternary (index . (min 4 (sub (len .) 1) | int)) dict (gt (len .) 4) -}}
name: {{ index . 1 }}
{{- if gt (len .) 2 }}
{{- with index . 2 }}
namespace: {{ . }}
{{- end }}
{{- end }}
labels:
  {{- include "backupsync.labels" $root | nindent 2 }}
  {{- with $extra }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) $own $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "backupsync.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "backupsync.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "backupsync.keySecretName" -}}
{{- default (printf "%s-key" (include "backupsync.fullname" .)) .Values.keySecret.name -}}
{{- end -}}

{{/* An image by tag or digest: (list $ IMAGE-VALUES). */}}
{{- define "backupsync.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}
