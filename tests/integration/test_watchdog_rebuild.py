"""cost-watchdog whose database was lost: it reads again what it had acknowledged, and says nothing twice."""

from pathlib import Path

import pytest

from helpers import eventually
from midwatch.contracts import subjects
from midwatch.contracts.runs import Finished
from watchdog_helpers import AGENT, all_read, common, crash_at, halts, publish, said, spending, states, watchdog


def lose_database(settings) -> None:
    for file in Path(settings.home, "data").glob("cost_watchdog.db*"):
        file.unlink()


@pytest.fixture
async def lost(js, settings):
    """Settings of a watchdog that has seen runs at $0.60 and $0.85 and one finished at $0.70, and lost its database."""
    async with watchdog(settings):
        await publish(js, spending(["0.30", "0.30"], "run-1"))
        await publish(js, spending(["0.85"], "run-2"))
        await publish(js, [*spending(["0.70"], "run-3"), Finished(**common(2, "run-3"), resolution="resolved")])
        await eventually(lambda: all_read(js))
    lose_database(settings)
    return settings


async def test_its_state_is_what_it_was(js, lost):
    async with watchdog(lost):
        pass
    found = await states(lost)
    assert {key.split("/")[2]: str(state.spent.amount) for key, state in found.items()} == {
        "run-1": "0.60", "run-2": "0.85", "run-3": "0.70",
    }  # fmt: skip
    assert found[f"live/{AGENT}/run-3"].finished


async def test_nothing_that_was_said_is_said_again(js, lost):
    before = await said(js)
    async with watchdog(lost):
        pass
    after = await said(js)
    assert (len(after.raised), len(after.resolved)) == (len(before.raised), len(before.resolved))


async def test_what_was_spent_before_counts_for_what_comes(js, lost):
    async with watchdog(lost):
        more = spending(["0.30", "0.30", "0.40"], "run-1")[3:]
        await publish(js, more)
        await eventually(lambda: all_read(js))
    (record,) = (await halts(js)).values()
    assert record.reason == "Run run-1 of refund-desk has spent $1.00 of its $1.00 budget"


async def test_a_repeat_of_what_was_read_again_counts_once(js, lost):
    async with watchdog(lost):
        await publish(js, spending(["0.30", "0.30"], "run-1"), known=False)
        await eventually(lambda: all_read(js))
    assert str((await states(lost))[f"live/{AGENT}/run-1"].spent.amount) == "0.60"


async def test_one_that_dies_on_the_way_goes_on(js, lost):
    await crash_at(js, lost, "cost_watchdog.judged_again")
    async with watchdog(lost):
        pass
    assert str((await states(lost))[f"live/{AGENT}/run-1"].spent.amount) == "0.60"


async def test_a_message_that_was_refused_is_passed_over(js, settings):
    async with watchdog(settings):
        await js.publish(subjects.run(AGENT, "started"), b"no event")
        await publish(js, spending(["0.60"]))
        await eventually(lambda: all_read(js))
    lose_database(settings)
    async with watchdog(settings):
        pass
    assert str((await states(settings))[f"live/{AGENT}/run-1"].spent.amount) == "0.60"
