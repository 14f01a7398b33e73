"""What the probes say, asked over HTTP."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from nats.js import JetStreamContext

from helpers import eventually
from midwatch.contracts import subjects
from midwatch.errors import Temporary
from midwatch.runtime.delivery import Received
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.probes import BODY_LIMIT, Answer, HttpPortTaken, Request
from midwatch.runtime.service import Context, Service, run_services
from midwatch.runtime.serving import CannotListen
from midwatch.runtime.settings import Settings


async def _ignore(_: list[Received]) -> None:
    pass


def _build(context: Context) -> None:
    context.read_runs(subjects.LOGGER, _ignore)


class Asked:
    def __init__(self, client: httpx.AsyncClient, base: str) -> None:
        self._client, self._base = client, base

    async def get(self, path: str) -> tuple[int, Any]:
        answer = await self._client.get(f"{self._base}{path}")
        is_json = answer.headers["content-type"] == "application/json"
        return answer.status_code, json.loads(answer.text) if is_json else answer.text

    async def says(self, path: str, status: int) -> Any:
        """The body, once `path` answers with `status`."""

        async def asked() -> Any:
            found, body = await self.get(path)
            assert found == status, body
            return body

        return await eventually(asked, within=20)


@contextlib.asynccontextmanager
async def _serving(settings: Settings, *services: Service) -> AsyncIterator[Asked]:
    listening: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_services(services, settings, listening=listening.set_result))
    urls = await listening
    async with httpx.AsyncClient(timeout=20) as client:
        yield Asked(client, next(iter(urls.values())).rsplit("/", 1)[0])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


LOGGER = Service("logger", _build, tables=False)


async def test_a_running_service_is_alive_and_ready(js: JetStreamContext, settings: Settings) -> None:
    async with _serving(settings, LOGGER) as asked:
        assert await asked.says("/readyz", 200) == {
            "ok": True, "services": [{"service": "logger", "ok": True, "errors": {}}],
        }  # fmt: skip
        assert await asked.get("/logger/livez") == (200, {"service": "logger", "ok": True, "error": None})


async def test_ready_becomes_503_when_nats_dies_and_200_when_it_is_back(
    nats_server: NatsServer, js: JetStreamContext, settings: Settings
) -> None:
    async with _serving(settings, LOGGER) as asked:
        await asked.says("/readyz", 200)
        nats_server.kill()
        await nats_server.wait()
        body = await asked.says("/logger/readyz", 503)
        assert "nats" in body["errors"]
        assert (await asked.get("/livez"))[0] == 200, "a restart of the service would not bring NATS back"
        await nats_server.restart()
        await asked.says("/readyz", 200)


async def test_a_hung_server_is_noticed_by_a_real_round_trip(
    nats_server: NatsServer, js: JetStreamContext, settings: Settings
) -> None:
    import os
    import signal

    async with _serving(settings, LOGGER) as asked:
        await asked.says("/readyz", 200)
        os.kill(nats_server.pid, signal.SIGSTOP)
        try:
            assert "nats" in (await asked.says("/logger/readyz", 503))["errors"]
        finally:
            os.kill(nats_server.pid, signal.SIGCONT)


async def test_a_database_that_does_not_answer_is_named(
    js: JetStreamContext, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from midwatch.runtime import service
    from midwatch.runtime.database import Database

    monkeypatch.setattr(service, "_migrate", lambda url, name: None)
    async with _serving(settings, Service("logger", _build)) as asked:
        await asked.says("/readyz", 200)

        async def gone(_: Database) -> None:
            raise Temporary("the disk is full")

        monkeypatch.setattr(Database, "ping", gone)
        assert (await asked.says("/logger/readyz", 503))["errors"] == {"database": "the disk is full"}


async def test_a_service_says_what_it_waits_for(nats_server: NatsServer, settings: Settings) -> None:
    async with _serving(settings, LOGGER) as asked:

        async def asks_for_topology() -> bool:
            _, body = await asked.get("/logger/readyz")
            return "run `midwatch topology apply`" in body["errors"]["service"]

        assert await eventually(asks_for_topology)
        assert (await asked.get("/logger/livez"))[0] == 200


async def test_a_service_that_died_is_not_alive_and_says_why(js: JetStreamContext, settings: Settings) -> None:
    async def dies() -> None:
        raise ValueError("boom")

    async with _serving(settings, Service("logger", lambda context: context.background(dies), tables=False)) as asked:
        assert await asked.says("/logger/livez", 503) == {"service": "logger", "ok": False, "error": "boom"}


async def test_one_service_does_not_speak_for_another(js: JetStreamContext, settings: Settings) -> None:
    def broken(context: Context) -> None:
        raise ValueError("cannot be built")

    async with _serving(settings, LOGGER, Service("kill-switch", broken, tables=False)) as asked:
        await asked.says("/logger/readyz", 200)
        assert (await asked.says("/kill-switch/readyz", 503))["errors"]["service"] == "died: cannot be built"
        assert (await asked.get("/livez"))[0] == 503


async def test_metrics_are_there_for_all_and_for_one(js: JetStreamContext, settings: Settings) -> None:
    async with _serving(settings, LOGGER) as asked:
        await asked.says("/logger/readyz", 200)
        status, text = await asked.get("/metrics")
        assert status == 200
        assert "process_resident_memory_bytes" in text
        status, text = await asked.get("/logger/metrics")
        assert 'midwatch_service_ready{service="logger"} 1.0' in text
        assert "process_resident_memory_bytes" not in text


async def test_an_unknown_path_names_the_known_ones(js: JetStreamContext, settings: Settings) -> None:
    async with _serving(settings, LOGGER) as asked:
        for path in ("/", "/healthz", "/nobody/livez", "/logger"):
            status, body = await asked.get(path)
            assert (status, list(body["services"])) == (404, ["logger"])


async def _echo(request: Request) -> Answer | None:
    if request.path == "nothing":
        return None
    return 202, {"path": request.path, "kind": request.headers["x-kind"], "body": request.body.decode()}


ECHOING = Service("logger", lambda context: context.answer(_echo), tables=False)


async def test_a_service_answers_what_is_posted_below_its_name(js: JetStreamContext, settings: Settings) -> None:
    async with _serving(settings, ECHOING, Service("kill-switch", lambda context: None, tables=False)) as asked:
        await asked.says("/readyz", 200)

        async def post(path: str, body: bytes = b"x") -> tuple[int, Any]:
            answer = await asked._client.post(f"{asked._base}{path}", content=body, headers={"X-Kind": "k"})
            return answer.status_code, answer.json()

        assert await post("/logger/a/b") == (202, {"path": "a/b", "kind": "k", "body": "x"})
        assert (await post("/logger/a", b"y" * BODY_LIMIT))[0] == 202
        assert (await post("/logger/a", b"y" * (BODY_LIMIT + 1)))[0] == 413
        for path in ("/logger/nothing", "/kill-switch/a", "/nobody/a", "/a"):
            assert (await post(path))[0] == 404, path
        assert (await asked.get("/logger/a"))[0] == 404
        assert (await asked.get("/logger/livez"))[0] == 200


async def test_a_service_that_does_not_run_yet_takes_no_request(nats_server: NatsServer, settings: Settings) -> None:
    async with _serving(settings, ECHOING) as asked:
        assert (await asked._client.post(f"{asked._base}/logger/a")).status_code == 503
        assert (await asked.get("/logger/a"))[0] == 404


async def test_a_host_that_nobody_knows_is_not_told_as_a_port_that_is_taken(
    js: JetStreamContext, settings: Settings
) -> None:
    with pytest.raises(
        CannotListen, match=r"of 192\.0\.2\.1 \(Cannot assign .* MIDWATCH_HTTP_HOST .* MIDWATCH_HTTP_PORT"
    ):
        await run_services([LOGGER], settings.model_copy(update={"http_host": "192.0.2.1"}))


async def test_a_taken_http_port_is_named_with_what_to_do(js: JetStreamContext, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HttpPortTaken, match=f"Port {port} .* MIDWATCH_HTTP_PORT"):
            await run_services([LOGGER], settings.model_copy(update={"http_port": port}))
