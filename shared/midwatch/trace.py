"""W3C trace context of an event: the span that is active where it was recorded, else one of the run's own."""

import hashlib
import sys

from .contracts.envelope import new_span


class Tracer:
    """Gives each event of one run its `traceparent`."""

    __slots__ = ("_own",)

    def __init__(self, run_id: str) -> None:
        # Derived, so that every process that speaks of this run speaks of the same trace.
        trace = hashlib.sha256(run_id.encode("utf-8", "replace")).hexdigest()[:32]
        self._own = f"00-{trace}-"

    def traceparent(self) -> bytes:
        """The active span's context where OpenTelemetry is in use, else this run's trace with a new span."""
        telemetry = sys.modules.get("opentelemetry.trace")
        if telemetry is not None:
            context = telemetry.get_current_span().get_span_context()
            if context.is_valid:
                return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}".encode()
        return f"{self._own}{new_span()}-01".encode()
