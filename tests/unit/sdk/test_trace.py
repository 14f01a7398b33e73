"""The trace context of an event."""

import re

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from midwatch.trace import Tracer


def test_without_a_span_the_events_of_a_run_share_a_trace() -> None:
    first, second, again = (Tracer("r1").traceparent().decode() for _ in range(3))
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", first)
    assert first[:35] == second[:35] == again[:35]
    assert len({first, second, again}) == 3
    assert Tracer("r2").traceparent().decode()[:35] != first[:35]


def test_an_active_span_is_the_context() -> None:
    provider = TracerProvider()
    with provider.get_tracer("test").start_as_current_span("answer") as span:
        context = span.get_span_context()
        flags = int(context.trace_flags)
        expected = f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"
        assert Tracer("r1").traceparent().decode() == expected
    provider.shutdown()
    assert not trace.get_current_span().get_span_context().is_valid
