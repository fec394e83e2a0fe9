"""Between the observer and OpenTelemetry's exporter: a bounded queue, a bounded end, and one warning where spans are lost."""

import logging
import os
import threading
from collections.abc import Sequence

from htcgrid.spi import Rejected
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

log = logging.getLogger("htcgrid.otel")

_QUEUE_SPANS = 20_000
"""OpenTelemetry's own default, 2,048 spans, is a tenth of a second of small tasks."""
_BATCH_SPANS = 512
"""OpenTelemetry's own default, which it refuses where fewer spans may wait."""
_CLOSE_SECONDS = 1.5
"""What the last spans have to be sent in; the agent waits 2 s for all observers together."""
_THEIR_LOGGERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")


class SpanSender:
    """Sends finished spans from a thread of its own. `add` never waits."""

    def __init__(self) -> None:
        for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            protocol = os.environ.get(name, "http/protobuf")
            if protocol != "http/protobuf":
                raise Rejected(
                    f"{name} = {protocol}: the observer `otel` sends http/protobuf alone. Unset the variable, and let "
                    "OTEL_EXPORTER_OTLP_ENDPOINT name the receiver's port for HTTP, which is mostly 4318."
                )
        self._exporter = _CountingExporter(OTLPSpanExporter())
        chosen = os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", "")
        self._most = int(chosen) if chosen.isdecimal() and int(chosen) else _QUEUE_SPANS
        batch = None if os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") else min(self._most, _BATCH_SPANS)
        self._batches = BatchSpanProcessor(self._exporter, self._most, max_export_batch_size=batch)
        self._added = self._unmade = 0
        self._silence = _Silence()
        for name in _THEIR_LOGGERS:
            logging.getLogger(name).addFilter(self._silence)

    def has_room(self) -> bool:
        """Whether one more span can wait; one that cannot is counted as lost, and need not be made."""
        if self._added - self._exporter.taken < self._most:
            return True
        self._unmade += 1
        return False

    def add(self, span: ReadableSpan) -> None:
        self._added += 1
        self._batches.on_end(span)

    def close(self) -> None:
        """Send what waits, for a bounded time."""
        closing = threading.Thread(target=self._batches.shutdown, name="htcgrid-otel-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)
        if closing.is_alive():
            self._exporter.shutdown()  # ends what it waits for
            closing.join(_CLOSE_SECONDS / 10)
        for name in _THEIR_LOGGERS:
            logging.getLogger(name).removeFilter(self._silence)
        made = self._added + self._unmade
        lost = made - self._exporter.sent
        if lost:
            log.warning(
                "%s of %s spans were not sent: the receiver was away, refused them, or was slower than the run. "
                "OTEL_EXPORTER_OTLP_ENDPOINT names the receiver; OTEL_BSP_MAX_QUEUE_SIZE is how many spans may wait.%s",
                f"{lost:,}",
                f"{made:,}",
                f" The first error: {self._silence.first}" if self._silence.first else "",
            )


class _CountingExporter(SpanExporter):
    """OpenTelemetry's exporter, with a count of what was received."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self._exporter = exporter
        self._is_shut = False
        self.sent = self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        if self._is_shut:
            return SpanExportResult.FAILURE
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += len(spans)
        return result

    def shutdown(self) -> None:
        if not self._is_shut:
            self._is_shut = True
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class _Silence(logging.Filter):
    """The exporter logs each try. The first message is kept, to be shown once."""

    first = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.first = self.first or record.getMessage()
        return False
