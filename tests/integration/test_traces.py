"""One trace from the SDK through every service, as an OTLP receiver gets it."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from nats.js import JetStreamContext
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import midwatch
from helpers import all_read, eventually
from midwatch.contracts import subjects
from midwatch.runtime import topology
from midwatch.runtime.service import run_services
from midwatch.runtime.settings import Settings
from midwatch_services import registry


class Receiver:
    """Takes OTLP over HTTP, as a collector does. `spans`: (service, trace id, name)."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                self.spans += [(service, span.trace_id.hex(), span.name) for span in scope.spans]

    def __enter__(self) -> "Receiver":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as found:
        yield found


READERS = [consumer.name for consumer in topology.CONSUMERS if consumer.stream == subjects.RUNS]


async def test_an_event_is_followed_from_the_sdk_through_every_service_that_reads_runs(
    js: JetStreamContext, settings: Settings, receiver: Receiver
) -> None:
    traced = settings.model_copy(update={"otlp_endpoint": receiver.url})
    started = asyncio.Event()
    services = [registry.load(name) for name in registry.NAMES]
    running = asyncio.create_task(run_services(services, traced, started=lambda _: started.set(), restart=False))
    try:
        async with asyncio.timeout(60):
            await started.wait()
            async with midwatch.connect(settings.nats_url) as mw:
                desk = mw.agent("refund-desk", version="1", obey=False)
                async with desk.run(input="Where is my order?") as run:
                    run.say("agent", "It arrives on Friday.")
                    await run.finish("It arrives on Friday.")
            said = await js.get_last_msg(subjects.RUNS, subjects.run("refund-desk", "said"))
            trace = (said.headers or {})["traceparent"].split("-")[1]
            for name in READERS:
                await eventually(lambda name=name: all_read(js, subjects.RUNS, name))
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)  # what is left is exported at the end
    of_run = {service for service, trace_id, name in receiver.spans if trace_id == trace and name.endswith(".said")}
    assert {service.removeprefix("midwatch-").removeprefix("midwatch/") for service in of_run} == set(READERS)
