"""Run events as they are published, for a person to watch; nothing is acknowledged or kept."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import nats
import nats.errors
from nats.js.api import ConsumerConfig, DeliverPolicy

from midwatch.contracts import codec, subjects
from midwatch.contracts.codec import Refused
from midwatch.runtime.broker import connection
from midwatch.runtime.settings import Settings

from .decide import text_of


async def follow(agent: str | None = None) -> AsyncIterator[dict[str, Any]]:
    """Each new run event, of one agent or of all; one that breaks the contract has `error` in place of `data`.

    After a lost connection it goes on where it was. Raises Temporary where NATS does not answer.
    """
    url = Settings().url

    async def quiet(_: Exception) -> None:
        """The client reconnects by itself."""

    async with connection(url):
        pass  # the one below would wait for a server for ever
    nc = await nats.connect(url.split(","), max_reconnect_attempts=-1, ping_interval=2, error_cb=quiet)
    js = nc.jetstream()
    subject = f"midwatch.run.{agent or '*'}.>"
    config = ConsumerConfig(deliver_policy=DeliverPolicy.NEW)
    try:
        while True:
            reconnects = nc.stats["reconnects"]
            subscription = await js.subscribe(subject, stream=subjects.RUNS, ordered_consumer=True, config=config)
            while nc.stats["reconnects"] == reconnects:
                with contextlib.suppress(nats.errors.TimeoutError, TimeoutError):
                    message = await subscription.next_msg(timeout=1)
                    sequence = message.metadata.sequence.stream
                    config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=sequence + 1)
                    yield _event(message.subject, message.data)
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()
    finally:
        await nc.close()


def _event(subject: str, body: bytes) -> dict[str, Any]:
    try:
        event = codec.decode_run(subject, body)
    except Refused as refused:
        return {"subject": subject, "reason": refused.reason, "error": str(refused)}
    data = msgspec.to_builtins(event.data)
    return {"agent": event.agent, "event": event.event, "id": event.id, "time": text_of(event.time), "data": data}
