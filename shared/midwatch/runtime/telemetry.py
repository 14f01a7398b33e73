"""What can be seen from outside: logs, metrics and traces. Every metric's name stands here."""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from midwatch.contracts import subjects

from .settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span, Tracer

# --- Metrics. Each carries the label `service`, so that services in one process can be told apart. ---

# Messages that a service has handled and acknowledged.
HANDLED = Counter("midwatch_messages_handled", "Messages handled and acknowledged", ["service", "consumer"])
# Messages handed back to be tried again later.
RETRIED = Counter("midwatch_messages_retried", "Messages handed back to be tried again", ["service", "consumer"])
# Messages given up; `reason` is the short code of the dead letter.
DEAD = Counter("midwatch_messages_dead", "Messages put among the dead letters", ["service", "reason"])
# From the receipt of a batch to its acknowledgement.
BATCH_SECONDS = Histogram(
    "midwatch_batch_seconds", "Seconds from receiving a batch to acknowledging it", ["service", "consumer"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)  # fmt: skip
# Messages of its stream that a consumer has not been given or has not acknowledged: its lag.
LAG = Gauge("midwatch_consumer_lag", "Messages not yet handled", ["service", "consumer"])
# Requests about budgets that were answered; `outcome` is granted, refused, committed, or the short code of an error.
BUDGET_ANSWERS = Counter("midwatch_budget_answers", "Requests about budgets answered", ["service", "outcome"])
# Periodic work that raised; the service lives on.
PERIODIC_ERRORS = Counter("midwatch_periodic_errors", "Periodic work that raised", ["service", "work"])
# When a service last handled and acknowledged something: its age is the age of its last decision.
LAST_HANDLED = Gauge("midwatch_last_handled_timestamp_seconds", "Unix time of the last batch", ["service", "consumer"])
# Times that a service was started again after it had died.
RESTARTS = Counter("midwatch_service_restarts", "Times the service was started again", ["service"])
# Attempts to bring a message to people, by channel of pager.yaml; `outcome` is sent, failed, refused or given_up.
DELIVERIES = Counter("midwatch_pager_deliveries", "Attempts to tell people", ["service", "channel", "outcome"])
# Alerts that wait for somebody or something, by severity.
OPEN_ALERTS = Gauge("midwatch_pager_open_alerts", "Alerts that are open", ["service", "severity"])
# Age of the oldest page that nobody has acknowledged; 0 where there is none.
UNACKNOWLEDGED = Gauge("midwatch_pager_unacknowledged_seconds", "Age of the oldest unacknowledged page", ["service"])
# For how long the oldest event that cost-watchdog has not acknowledged has waited for it.
WATCHDOG_LAG = Gauge("midwatch_watchdog_lag_seconds", "Age of the oldest event not yet judged", ["service"])
# For how long the oldest of what could be read into the index of the run log has waited for it.
INDEX_LAG = Gauge("midwatch_index_lag_seconds", "Age of the oldest run that cannot be found yet", ["service"])
# 1 while a service answers its readiness probe with yes; set whenever the probe is asked.
READY = Gauge("midwatch_service_ready", "1 while the service is ready", ["service"])
# 1 while the file of the operator's prices has a mistake, so that those read before hold.
PRICES_WRONG = Gauge("midwatch_prices_file_wrong", "1 while the file of prices has a mistake", ["service"])
# Model calls that a provider or framework reported at another cost than the prices make of them.
COST_DIFFERS = Counter(
    "midwatch_cost_differs", "Model calls whose reported cost is not what the prices make of it", ["service", "agent"]
)
# Events of the run log that are in no chain yet; at most 100,000 are counted.
UNSEALED = Gauge("midwatch_evidence_unsealed", "Events stored and not sealed yet", ["service"])
# When events were last sealed: its age, while there are some to seal, is how far the sequencer lags.
SEALED_AT = Gauge("midwatch_evidence_last_seal_timestamp_seconds", "Unix time of the last block", ["service"])
# Checkpoints that a sink (file, url, nats) has not taken yet.
SINK_BEHIND = Gauge("midwatch_evidence_sink_behind", "Checkpoints that a sink has not taken", ["service", "sink"])


class _OneService(Collector):
    def __init__(self, service: str) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        for metric in REGISTRY.collect():
            samples = [sample for sample in metric.samples if sample.labels.get("service") == self._service]
            if samples:
                metric.samples = samples
                yield metric


def metrics(service: str | None = None) -> bytes:
    """Every metric of this process, or those of one service, as Prometheus reads them."""
    if service is None:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    registry.register(_OneService(service))
    return generate_latest(registry)


# --- Logs ---

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_SECRET = re.compile(r"password|secret|token|authori[sz]ation|api_?key|credential", re.IGNORECASE)
_LONGEST = 1000  # characters of one value; a message's body has no place in a log
_LONGEST_TRACEBACK = 8000


def set_up_logs(settings: Settings) -> None:
    """Logs to standard error: one JSON object a line, or lines for people where that is a terminal."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    renderer: Any = structlog.processors.JSONRenderer()
    if not as_json:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        safe,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for old in [*root.handlers]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # what libraries say of their own
    logging.getLogger("midwatch").setLevel(settings.log_level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level)),
        cache_logger_on_first_use=True,
    )


def safe(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Masks secrets, and cuts and cleans what agents or customers may have written."""
    for key, value in event.items():
        if key.startswith("_") or isinstance(value, (int, float, type(None))):
            continue
        if _SECRET.search(key):
            event[key] = "***"
        elif isinstance(value, (bytes, bytearray)):
            event[key] = f"<{len(value)} bytes>"
        elif isinstance(value, str):
            event[key] = _printable(value, is_traceback=key == "exception")
    return event


def _printable(text: str, *, is_traceback: bool) -> str:
    longest = _LONGEST_TRACEBACK if is_traceback else _LONGEST
    kept = "\n" if is_traceback else ""
    text = "".join(c if c.isprintable() or c in kept else " " for c in text)
    if len(text) > longest:
        text = f"{text[:longest]}… ({len(text)} characters)"
    return _CREDENTIALS.sub("***", text)


# --- Traces. Off, and without cost, until an OTLP address is set. ---


class Traced(Protocol):
    """What a span is made of: a message from a stream."""

    subject: str
    body: bytes
    headers: Mapping[str, str] | None


_exporter: "SpanProcessor | None" = None
_tracers: dict[str, "Tracer"] = {}
_NO_SPAN: AbstractContextManager[None] = nullcontext()


def set_up_traces(settings: Settings, *, processor: "SpanProcessor | None" = None) -> None:
    """Exports spans to the OTLP address of the settings, or to `processor`; without either, tracing stays off."""
    global _exporter
    _tracers.clear()
    _exporter = processor
    if processor is None and settings.otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        address = settings.otlp_endpoint.rstrip("/")
        if not address.endswith("/v1/traces"):
            address += "/v1/traces"
        _exporter = BatchSpanProcessor(OTLPSpanExporter(endpoint=address))


def end_traces() -> None:
    """Sends what is left and switches tracing off."""
    global _exporter
    if _exporter is not None:
        _exporter.shutdown()
    _exporter = None
    _tracers.clear()


def spans_for(batch: Sequence[Traced], service: str) -> AbstractContextManager[None]:
    """A span for each message of a batch that is handled as one, child of the span that published it."""
    return _NO_SPAN if _exporter is None else _spans(batch, service)


@contextlib.contextmanager
def _spans(batch: Sequence[Traced], service: str) -> Iterator[None]:
    spans = [_start(message, service) for message in batch]
    try:
        yield
    except BaseException as error:
        from opentelemetry.trace import Status, StatusCode

        for span in spans:
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(Status(StatusCode.ERROR))
        raise
    finally:
        for span in spans:
            span.end()


def _start(message: Traced, service: str) -> "Span":
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: Mapping[str, str] = message.headers or {}
    tokens = message.subject.split(".")
    template = ".".join([*tokens[:2], "{agent}", *tokens[3:]]) if len(tokens) == 4 else message.subject
    attributes: dict[str, str | int] = {
        "messaging.system": "nats",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": message.subject,
        "messaging.destination.template": template,
        "messaging.consumer.group.name": service,
        "messaging.message.body.size": len(message.body),
    }
    if identity := headers.get(subjects.MSG_ID):
        attributes["messaging.message.id"] = identity
    parent = TraceContextTextMapPropagator().extract(headers)
    return _tracer(service).start_span(f"process {template}", parent, SpanKind.CONSUMER, attributes)


def _tracer(service: str) -> "Tracer":
    if service not in _tracers:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        resource = Resource.create({"service.name": service, "service.namespace": "midwatch"})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        assert _exporter is not None
        provider.add_span_processor(_exporter)
        _tracers[service] = provider.get_tracer("midwatch")
    return _tracers[service]
