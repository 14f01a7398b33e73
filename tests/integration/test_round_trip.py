"""A server that stalls longer than a round trip may take is heard again as soon as it goes on."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from helpers import eventually
from midwatch.contracts import subjects
from midwatch.runtime.broker import round_trip
from midwatch.runtime.nats_server import NatsServer


async def test_an_answer_that_comes_too_late_leaves_the_client_hearing(
    js: JetStreamContext, nc: Client, nats_server: NatsServer
) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(message: object) -> None:
        heard.put_nowait(message.data)  # type: ignore[attr-defined]

    await nc.subscribe(subjects.presence("*", "*"), cb=hear)
    await round_trip(nc, within=2)
    os.kill(nats_server.pid, signal.SIGSTOP)
    try:
        await eventually(lambda: " T " in Path(f"/proc/{nats_server.pid}/stat").read_text())
        with pytest.raises((NatsError, TimeoutError)):
            await round_trip(nc, within=0.3)
    finally:
        os.kill(nats_server.pid, signal.SIGCONT)
    await round_trip(nc, within=2)
    await nc.publish(subjects.presence("desk", "pod-1"), b"here")
    assert await asyncio.wait_for(heard.get(), 1) == b"here"
    assert nc.stats["reconnects"] == 0
