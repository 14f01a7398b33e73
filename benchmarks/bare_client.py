"""A crowd of clients that do on the wire what an engine does, and nothing else: so that one machine can stand in for a
thousand. Each has a connection of its own, hears nudges, reads by direct get, reads the keys of the switch each second
on a beat, card and route each fifth, and reports.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from midwatch.contracts import control, subjects
from midwatch.contracts.control import Presence
from midwatch.link import to_beat

HELLO = (
    b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"bench","version":"1"}\r\n'
)
ANSWERS = 9  # subscription on which answers come; the nudges come on those before


class BareClient(asyncio.Protocol):
    """One client. `seen` is called with each revision of the fleet's key that it reads."""

    def __init__(self, agent: str, name: str, seen: Callable[[int], None], *, out_of_step: bool = False) -> None:
        """`out_of_step`: it keeps to no beat."""
        self._seen = seen
        self._out_of_step = out_of_step
        self._buffer = b""
        self._keys = subjects.switch_keys(agent)
        inbox = f"_INBOX.{name}"
        gets = [subjects.direct_get(subjects.SWITCH, key) for key in self._keys]
        gets += [subjects.direct_get(bucket, agent) for bucket in (subjects.AGENTS, subjects.ROUTES)]
        nudges = [subjects.control(key) for key in self._keys]
        nudges += [subjects.control_card(agent), subjects.control_route(agent)]
        self._turns = 0
        self._gets = [f"PUB {get} {inbox}.{number} 0\r\n\r\n".encode() for number, get in enumerate(gets)]
        presence = Presence(
            agent=agent, instance=name, version="1", host="bench", pid=os.getpid(),
            applied=dict.fromkeys(self._keys, 1), runs_in_flight=["bench"],
        )  # fmt: skip
        body = control.encode(presence)
        self._report = f"PUB {subjects.presence(agent, name)} {inbox}.9 {len(body)}\r\n".encode() + body + b"\r\n"
        self._subscriptions = f"SUB {inbox}.* {ANSWERS}\r\n".encode() + b"".join(
            f"SUB {nudge} {number}\r\n".encode() for number, nudge in enumerate(nudges)
        )
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(HELLO + self._subscriptions)
        self._after(random.random())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n")) >= 0:
            line = self._buffer[:end]
            size = int(line.rsplit(b" ", 1)[1]) + 2 if line.startswith((b"MSG", b"HMSG")) else 0
            if len(self._buffer) < end + 2 + size:
                return
            body = self._buffer[end + 2 : end + 2 + size]
            self._buffer = self._buffer[end + 2 + size :]
            if size:
                self._message(line.split(b" "), body)
            elif line == b"PING":
                self._transport.write(b"PONG\r\n")

    def _message(self, words: list[bytes], body: bytes) -> None:
        subscription = int(words[2])
        if subscription < ANSWERS:
            self._transport.write(self._gets[subscription] + self._report)
        elif words[1].endswith(b".0"):
            at = body.find(b"Nats-Sequence: ")
            if at >= 0:
                self._seen(int(body[at + 15 : body.index(b"\r\n", at)]))

    def _each_second(self) -> None:
        if not self._transport.is_closing():
            due = self._gets if self._turns % 5 == 0 else self._gets[: len(self._keys)]
            self._turns += 1
            self._transport.write(b"".join(due) + self._report)
            self._after(1.0)

    def _after(self, pause: float) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(pause if self._out_of_step else to_beat(pause, time.time()), self._each_second)


async def crowd(url: str, agent: str, count: int, *, out_of_step: bool = False) -> None:
    """`count` clients. Prints `ready`; for each revision on standard input, when each client saw it."""
    times: dict[int, list[float]] = {}
    moved = asyncio.Event()

    def client(number: int) -> BareClient:
        known: set[int] = set()

        def seen(revision: int) -> None:
            if revision not in known:
                known.add(revision)
                times.setdefault(revision, []).append(time.monotonic())
                moved.set()

        return BareClient(agent, f"bare-{os.getpid()}-{number}", seen, out_of_step=out_of_step)

    address = urlsplit(url)
    for number in range(count):
        await asyncio.get_running_loop().create_connection(
            lambda number=number: client(number),  # type: ignore[misc]
            address.hostname,
            address.port,
        )
    await asyncio.sleep(1.5)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        revision = int(line)
        while len(times.get(revision, ())) < count:
            moved.clear()
            await moved.wait()
        print(json.dumps(times.pop(revision)), flush=True)


if __name__ == "__main__":
    asyncio.run(crowd(sys.argv[1], sys.argv[2], int(sys.argv[3]), out_of_step="out-of-step" in sys.argv))
