"""One instance stopped, cut off, or with a wrong clock: nobody takes its silence for obedience, and it acts on nothing
old."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import eventually
from pods import LEASE, arm, pod
from proxy import proxy
from stack import Stack

pytestmark = pytest.mark.chaos

HALT = ("halt", "desk", "--reason", "wrong refunds", "--json", "--wait")
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
HOUR = 3600


def states(report: dict[str, Any]) -> dict[str, str]:
    return {one["instance"]: one["state"] for one in report["instances"]}


async def reported(stack: Stack, event: str, wanted: dict[str, str], within: float = 15) -> None:
    """Waits until kill-switch has said this of the instances."""

    async def said() -> bool:
        found = [states(report) for report in await stack.spoken(event)]
        assert any(wanted.items() <= one.items() for one in found), found
        return True

    await eventually(said, within=within)


async def armed(stack: Stack) -> dict[str, bool]:
    return {one["instance"]: one["armed"] for one in await stack.run("switch", "--json")}


def clock(wrong: int) -> dict[str, str]:
    """Environment of a process whose clock on the wall is so many seconds wrong. Monotonic clocks stay right: no hand
    moves them on a real machine either."""
    right = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"{wrong:+d}", **right}


async def test_a_stopped_instance_is_unconfirmed_then_lapsed_and_admits_no_call_when_it_wakes(
    plain: Stack, tmp_path: Path, figure: Callable[..., None]
) -> None:
    await arm(plain.client.jetstream(), lease=12)
    await plain.start("kill-switch")
    async with pod(tmp_path, plain.nats.url, "pod-1") as frozen, pod(tmp_path, plain.nats.url, "pod-2") as other:
        frozen.pause()
        halted = time.monotonic()
        proof = (await plain.run(*HALT, "3.5", expect=3))[-1]
        assert proof["contained"] is False
        assert states(proof) == {"pod-1": "unconfirmed", "pod-2": "applied"}
        assert len(other.stopped_after(halted)) == other.runs
        await reported(plain, "unconfirmed", {"pod-1": "unconfirmed", "pod-2": "applied"})
        await reported(plain, "unconfirmed", {"pod-1": "lapsed", "pod-2": "applied"}, within=20)
        assert await plain.spoken("contained") == []
        woken = time.monotonic()
        frozen.wake()
        stopped = await frozen.stopped(woken)
        await reported(plain, "contained", {"pod-1": "applied", "pod-2": "applied"})
        figure("stopped process: calls admitted after it woke", len(frozen.calls_after(woken)), "calls", 0)
        figure("stopped process: all of its runs stopped, after it woke", stopped - woken, "s", 2)


async def test_an_instance_that_is_cut_off_falls_back_and_returns_by_itself(
    plain: Stack, tmp_path: Path, figure: Callable[..., None]
) -> None:
    await arm(plain.client.jetstream())
    await plain.start("kill-switch")
    async with (
        proxy(plain.nats.url) as way,
        pod(tmp_path, way.url, "pod-1") as far,
        pod(tmp_path, plain.nats.url, "pod-2") as near,
    ):
        assert await armed(plain) == {"pod-1": True, "pod-2": True}
        cut = time.monotonic()
        way.cut()
        stopped = await far.stopped(cut)
        assert {note.detail for note in far.stopped_after(cut)} == {"lease"}
        figure("cut off: last call", far.last_call(cut), "s", LEASE + 1)
        figure("cut off: at the fallback", stopped - cut, "s", LEASE + 2)
        await eventually(lambda: time.monotonic() - cut > 3.5, within=5)
        assert await armed(plain) == {"pod-1": False, "pod-2": True}
        assert near.stopped_after(cut) == []
        healed = time.monotonic()
        way.restore()
        figure("cut off: every run goes on after the way is restored", await far.busy(healed) - healed, "s", 6)
        assert await armed(plain) == {"pod-1": True, "pod-2": True}


async def test_an_instance_that_is_cut_off_confirms_no_halt_and_obeys_it_when_the_way_is_restored(
    plain: Stack, tmp_path: Path, figure: Callable[..., None]
) -> None:
    await arm(plain.client.jetstream())
    await plain.start("kill-switch")
    async with (
        proxy(plain.nats.url) as way,
        pod(tmp_path, way.url, "pod-1") as far,
        pod(tmp_path, plain.nats.url, "pod-2") as near,
    ):
        cut = time.monotonic()
        way.cut()
        proof = (await plain.run(*HALT, "1", expect=3))[-1]
        assert proof["contained"] is False
        assert states(proof)["pod-1"] in ("unconfirmed", "lapsed")
        await far.stopped(cut)
        await near.stopped(cut)
        figure("halted while cut off: last call", far.last_call(cut), "s", LEASE + 1)
        await reported(plain, "unconfirmed", {"pod-1": "lapsed", "pod-2": "applied"})
        assert await plain.spoken("contained") == []
        healed = time.monotonic()
        way.restore()
        await reported(plain, "contained", {"pod-1": "applied", "pod-2": "applied"})
        figure("halted while cut off: contained after the way is restored", time.monotonic() - healed, "s", 6)
        figure("halted while cut off: calls after that", len(far.calls_after(healed)), "calls", 0)


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed: apt install faketime")
@pytest.mark.parametrize("wrong", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_an_instance_whose_clock_is_an_hour_wrong_is_armed_halted_proved_and_revoked_as_any_other(
    plain: Stack, tmp_path: Path, figure: Callable[..., None], wrong: int
) -> None:
    name = "an hour ahead" if wrong > 0 else "an hour behind"
    await arm(plain.client.jetstream())
    await plain.start("kill-switch")
    async with (
        proxy(plain.nats.url) as way,
        pod(tmp_path, way.url, environment=clock(wrong)) as desk,
    ):
        assert await armed(plain) == {"pod-1": True}
        proof = (await plain.run(*HALT))[-1]
        assert proof["contained"] is True
        assert proof["seconds"] < 1
        await reported(plain, "contained", {"pod-1": "applied"})
        assert await plain.spoken("revoked") == []
        await plain.run("resume", "desk", "--reason", "over", "--json")
        await desk.busy()
        cut = time.monotonic()
        way.cut()
        await desk.stopped(cut)
        figure(f"clock {name}, cut off: last call", desk.last_call(cut), "s", LEASE + 1)
        way.restore()
        await desk.busy()
        figure(f"clock {name}: contained", proof["seconds"], "s", 1)


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed: apt install faketime")
@pytest.mark.parametrize("wrong", [HOUR, -HOUR], ids=["ahead", "behind"])
async def test_a_call_after_the_proof_revokes_it_whatever_the_clock_of_its_instance_says(
    plain: Stack, tmp_path: Path, figure: Callable[..., None], wrong: int
) -> None:
    await arm(plain.client.jetstream())
    await plain.start("kill-switch")
    async with pod(tmp_path, plain.nats.url, more=["rogue"], environment=clock(wrong)):
        halted = time.monotonic()
        assert (await plain.run(*HALT))[-1]["contained"] is True

        async def revoked() -> bool:
            return len(await plain.spoken("revoked")) == 1

        await eventually(revoked, within=10)
        name = "an hour ahead" if wrong > 0 else "an hour behind"
        figure(f"clock {name}: a call after the proof revokes it after", time.monotonic() - halted, "s", 6)
