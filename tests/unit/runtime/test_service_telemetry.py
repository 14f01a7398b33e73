"""Logs without secrets, metrics of one service, spans that follow an event."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from midwatch.runtime import telemetry
from midwatch.runtime.broker import without_credentials
from midwatch.runtime.settings import Settings

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@dataclass
class Message:
    subject: str = "midwatch.run.refund-desk.started"
    body: bytes = b"12345"
    headers: dict[str, str] | None = field(
        default_factory=lambda: {"traceparent": f"00-{TRACE}-{PARENT}-01", "Nats-Msg-Id": "e-1"}
    )


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    telemetry.set_up_traces(Settings(), processor=SimpleSpanProcessor(exporter))
    yield exporter
    telemetry.end_traces()


def _logged(**event: object) -> dict[str, object]:
    return dict(telemetry.safe(None, "info", dict(event)))


def test_a_secret_is_masked_by_the_name_it_goes_under() -> None:
    assert _logged(api_key="k", db_password="p", Authorization="b", agent="a") == {
        "api_key": "***", "db_password": "***", "Authorization": "***", "agent": "a",
    }  # fmt: skip


def test_credentials_in_an_address_are_masked_wherever_they_stand() -> None:
    assert _logged(event="lost nats://ops:hunter2@bus:4222 again")["event"] == "lost nats://***@bus:4222 again"
    assert without_credentials("nats://ops:hunter2@a:1,nats://b:2") == "nats://a:1,nats://b:2"


def test_a_payload_does_not_reach_the_log() -> None:
    assert _logged(body=b"name of a customer")["body"] == "<18 bytes>"
    assert _logged(error="x" * 5000)["error"] == "x" * 1000 + "… (5000 characters)"


def test_what_an_agent_wrote_cannot_steer_a_terminal() -> None:
    assert _logged(error="a\x1b[2Jb\nc")["error"] == "a [2Jb c"


def test_metrics_of_one_service_leave_out_the_others() -> None:
    telemetry.RESTARTS.labels("test-one").inc()
    telemetry.RESTARTS.labels("test-two").inc(2)
    text = telemetry.metrics("test-one").decode()
    assert 'midwatch_service_restarts_total{service="test-one"} 1.0' in text
    assert "test-two" not in text
    assert 'midwatch_service_restarts_total{service="test-two"} 2.0' in telemetry.metrics().decode()


def test_without_an_otlp_address_a_span_costs_nothing() -> None:
    telemetry.set_up_traces(Settings())
    assert telemetry.spans_for([Message()], "logger") is telemetry.spans_for([Message(), Message()], "other")


def test_the_span_of_an_event_is_a_child_of_the_one_that_published_it(spans: InMemorySpanExporter) -> None:
    with telemetry.spans_for([Message()], "logger"):
        pass
    (span,) = spans.get_finished_spans()
    assert span.name == "process midwatch.run.{agent}.started"
    assert span.kind is SpanKind.CONSUMER
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT
    assert span.resource.attributes["service.name"] == "logger"
    assert dict(span.attributes or {}) == {
        "messaging.system": "nats",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "midwatch.run.refund-desk.started",
        "messaging.destination.template": "midwatch.run.{agent}.started",
        "messaging.consumer.group.name": "logger",
        "messaging.message.body.size": 5,
        "messaging.message.id": "e-1",
    }


def test_a_batch_gives_a_span_for_each_message_and_each_says_what_failed(spans: InMemorySpanExporter) -> None:
    with pytest.raises(KeyError), telemetry.spans_for([Message(), Message(headers=None)], "cost-watchdog"):
        raise KeyError("x")
    first, second = spans.get_finished_spans()
    assert (first.parent is not None, second.parent) == (True, None)
    for span in (first, second):
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "KeyError"
        assert span.resource.attributes["service.name"] == "cost-watchdog"
