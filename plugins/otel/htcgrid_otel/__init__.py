"""The observer `otel`: spans of htcgrid for OpenTelemetry."""
