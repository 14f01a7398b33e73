"""Claims: the server's word on who sees to a case.

A key of the cases bucket can be created once. Whoever creates it has the case; whoever is refused leaves it alone.
"""

import asyncio
import contextlib
from concurrent.futures import Future
from typing import TypeVar

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from .contracts import control, subjects
from .contracts.control import CaseClaim
from .contracts.envelope import new_id, utc_now
from .fields import to_text
from .order import Order
from .switch import LEASE, Halt

T = TypeVar("T")

CLAIM_WITHIN = 0.8  # seconds for which a customer waits until it is known who has the case
LAPSED_WITHIN = 0.5  # the same where nobody has answered for a whole lease already
AGAIN = 0.2  # seconds after which what was not answered is said again; doubled each time
SLOWEST = 2.0  # seconds between two tries at most
TAKEN = "somebody else has its case: kill-switch, or another process with a run of this name"

_EXISTS = 10077  # error code of nats-server: the key has its one message already
REASON = 2000  # characters of a reason that stand in a claim


class _Error(msgspec.Struct):
    err_code: int = 0


class _PubAck(msgspec.Struct):
    stream: str = ""
    error: _Error | None = None


class Claims:
    """Creates keys of the cases bucket over the engine's connection. None waits for another. Runs in one loop."""

    def __init__(self) -> None:
        self._nc: Client | None = None
        self._inbox = ""
        self._asked: dict[str, asyncio.Future[bool]] = {}  # by the token of its answers
        self._count = 0

    async def subscribe(self, nc: Client) -> None:
        """Hears answers on a new connection."""
        self._inbox = nc.new_inbox()
        await nc.subscribe(f"{self._inbox}.*", cb=self._answered)
        self._nc = nc

    async def create(self, key: str, body: bytes, within: float) -> bool | None:
        """Whether the key is ours; None where the server does not say so in time."""
        loop = asyncio.get_running_loop()
        self._count += 1
        token, ends, pause = str(self._count), loop.time() + within, AGAIN
        # By its id the server tells our own write, said again, from somebody else's: it is one claim, not one run or
        # one process, that repeats.
        headers = {subjects.MSG_ID: new_id()}
        answer = self._asked[token] = loop.create_future()
        try:
            while not answer.done() and (left := ends - loop.time()) > 0:
                await self._publish(subjects.key_subject(subjects.CASES, key), body, token, headers)
                await asyncio.wait((answer,), timeout=min(pause, left))
                pause = min(pause * 2, SLOWEST)
            return answer.result() if answer.done() else None
        finally:
            del self._asked[token]

    async def _publish(self, subject: str, body: bytes, token: str, headers: dict[str, str]) -> None:
        nc = self._nc
        if nc is None or not nc.is_connected:
            return  # it would be sent when the connection is back, and be old
        with contextlib.suppress(nats.errors.Error):
            await nc.publish(subject, body, reply=f"{self._inbox}.{token}", headers=headers)

    async def _answered(self, msg: Msg) -> None:
        answer = self._asked.get(msg.subject.rsplit(".", 1)[1])
        if answer is None or answer.done():
            return
        try:
            ack = msgspec.json.decode(msg.data, type=_PubAck)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return  # no stream answers there; one may soon
        if ack.error is None and ack.stream == subjects.key_stream(subjects.CASES):
            answer.set_result(True)
        elif ack.error is not None and ack.error.err_code == _EXISTS:
            answer.set_result(False)
        # Any other error (no quorum, our own first write still under way) answers nothing.


def claim(order: Order, instance: str, halt: Halt) -> tuple[str, bytes, float]:
    """Key and value by which the program's own fallback takes the case of a run, and the seconds it may take."""
    value = CaseClaim(
        agent=order.agent, run_id=order.run_id, by=instance, to="own", at=utc_now(), key=halt.key, epoch=halt.epoch,
        reason=to_text(halt.reason)[:REASON],
    )  # fmt: skip
    within = LAPSED_WITHIN if halt.key == LEASE else CLAIM_WITHIN
    return subjects.case_key(order.agent, order.run_id), control.encode(value), within


async def known(answer: "Future[T | None]", within: float) -> T | None:
    """What an engine in another thread finds out, waited for no longer than `within` seconds."""
    future = asyncio.wrap_future(answer)
    await asyncio.wait((future,), timeout=within)
    return future.result() if future.done() else None
