"""Two of three servers killed: the third still answers what it knew, and no agent acts on that."""

import time
from collections.abc import Callable
from pathlib import Path

import nats
import pytest
from nats.errors import Error as NatsError

from cluster import cluster
from helpers import eventually
from midwatch.contracts import control, subjects
from midwatch.errors import MidwatchError
from midwatch.runtime.switchboard import Switchboard
from pods import LEASE, arm, pod

pytestmark = pytest.mark.chaos


async def test_a_survivor_that_serves_old_reads_keeps_no_agent_going(
    tmp_path: Path, figure: Callable[..., None]
) -> None:
    async with cluster(tmp_path) as three:
        await arm(three.client.jetstream())
        survivor, *others = three.nodes
        async with pod(tmp_path, survivor.url, "pod-1") as near, pod(tmp_path, three.url, "pod-2") as far:
            killed = time.monotonic()
            for node in others:
                node.kill()
            for one in (near, far):
                await one.stopped(killed)
                assert {note.detail for note in one.stopped_after(killed)} == {"lease"}
            last = max(near.last_call(killed), far.last_call(killed))
            old = await nats.connect(survivor.url)
            answer = await old.request(subjects.direct_get(subjects.SWITCH, "agent.desk"), timeout=2)
            record = control.decode_record(answer.data)
            await old.close()
            assert record is not None
            assert record.state == "running"
            figure("two of three servers killed: last call", last, "s", LEASE + 1)

            back = time.monotonic()
            await three.restart(others)
            again = [await one.busy(back, within=40) for one in (near, far)]
            figure("two of three servers back: every run goes on after", max(again) - back, "s", 30)

            board = Switchboard(three.client.jetstream())

            async def halted() -> bool:
                try:
                    return (await board.halt_agent("desk", reason="wrong refunds", by="ann")).changed
                except (NatsError, MidwatchError, TimeoutError):
                    return False

            asked = time.monotonic()
            await eventually(halted, within=20)
            written = time.monotonic()
            for one in (near, far):
                await one.stopped(asked)
            figure(
                "two of three servers back: last call after a halt",
                max(one.last_call(written) for one in (near, far)),
                "s",
                1,
            )
