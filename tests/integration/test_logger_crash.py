"""The logger's process dies between two steps: what was acknowledged is in the log once."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from helpers import all_read, eventually
from logged import publish
from midwatch.contracts import subjects
from midwatch.runtime.database import Database
from midwatch.runtime.nats_server import NatsServer
from midwatch.runtime.settings import Settings
from midwatch_services.logger import store

PROGRAM = """
from midwatch.runtime.service import run_services, run_until_signal
from midwatch.runtime.settings import Settings
from midwatch_services.logger.app import SERVICE
run_until_signal(lambda: run_services([SERVICE], Settings(), restart=False))
"""


@pytest.mark.chaos
@pytest.mark.parametrize("point", ["logger.inserted", "delivery.handled", "delivery.acked:2"])
async def test_a_dead_process_neither_loses_nor_doubles(
    js: JetStreamContext, nats_server: NatsServer, settings: Settings, point: str
) -> None:
    declared = await js.consumer_info(subjects.RUNS, subjects.LOGGER)
    await js.add_consumer(subjects.RUNS, declared.config.evolve(ack_wait=1))
    await asyncio.gather(*(publish(js, "said", seq=n, by="agent", text="x") for n in range(50)))
    first = start(settings, nats_server, MIDWATCH_FAULT=point)
    await asyncio.gather(*(publish(js, "said", seq=n, by="agent", text="x") for n in range(50, 100)))
    await feed_until_dead(js, first)
    second = start(settings, nats_server)
    try:
        await eventually(lambda: acknowledged(js), within=20)
    finally:
        second.terminate()
        second.wait(20)
    total = (await js.stream_info(subjects.RUNS)).state.messages
    database = Database(settings.database_for("logger"))
    [run] = database.read_now(lambda conn: store.read_runs(conn, run_id="r-1"))
    ids = database.read_now(lambda conn: store.read_events(conn, "desk", "r-1"))
    database.close()
    assert (run["events"], run["messages"], len({event["id"] for event in ids})) == (total, total, total)


def start(settings: Settings, server: NatsServer, **environment: str) -> subprocess.Popen[bytes]:
    common: dict[str, Any] = {"NATS_URL": server.url, "MIDWATCH_HOME": str(settings.home), "MIDWATCH_HTTP_PORT": "0"}
    Path(settings.home).mkdir(exist_ok=True)
    with (Path(settings.home) / "logger.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM], env={**os.environ, **common, **environment}, stdout=log, stderr=log
        )


async def feed_until_dead(js: JetStreamContext, process: subprocess.Popen[bytes]) -> None:
    """A fault at the second batch needs a second batch."""
    seq = 100
    while process.poll() is None:
        await publish(js, "said", seq=seq, by="agent", text="x")
        seq += 1
        await asyncio.sleep(0.05)
    assert process.returncode == 137


async def acknowledged(js: JetStreamContext) -> bool:
    return await all_read(js, subjects.RUNS, subjects.LOGGER)
