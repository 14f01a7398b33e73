"""What the demo runs on, and what it says where a step was not seen."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import typer
from nats.aio.client import Client
from nats.js import JetStreamContext

from midwatch.contracts import codec, control, subjects
from midwatch.contracts.control import Presence, SwitchRecord
from midwatch.contracts.envelope import utc_now
from midwatch.contracts.governance import SwitchMoved
from midwatch.runtime.database import Database, migrate
from midwatch.runtime.settings import Settings
from midwatch_services.commands.demo import _end
from midwatch_services.demo import stack
from midwatch_services.demo.desk import AGENT
from midwatch_services.demo.story import Outcome
from midwatch_services.demo.watch import NotSeen, Watch


@pytest.fixture
async def watch(nc: Client, js: JetStreamContext, settings: Settings) -> AsyncIterator[Watch]:
    url = settings.database_for(subjects.LOGGER)
    log = Database(url, name="test")
    await asyncio.to_thread(migrate, url, subjects.LOGGER)
    watch = Watch(AGENT, "session-1", log)
    await watch.listen(nc)
    yield watch
    log.close()


async def test_a_stack_that_does_not_come_up_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "nats").touch()  # where the server's folder should be
    with pytest.raises(stack.NotUp, match=r"it ended with exit code 1\. The end of its log[\s\S]*nats"):
        async with stack.running(tmp_path, None):
            pass


async def test_an_event_is_seen_whether_it_came_before_or_after(watch: Watch, js: JetStreamContext) -> None:
    async def halted(epoch: int) -> None:
        moved = SwitchMoved(
            key=subjects.agent_key(AGENT), epoch=epoch, record=SwitchRecord(state="halted"), written_at=utc_now()
        )
        event = codec.envelope("switch", "halted", moved, source="/services/test")
        await js.publish(subjects.switch(AGENT, "halted"), codec.encode(event))

    subject = subjects.switch(AGENT, "halted")
    await halted(1)
    assert (await watch.event("before", subject, lambda data: data.epoch == 1)).epoch == 1
    later = asyncio.create_task(watch.event("after", subject, lambda data: data.epoch == 2))
    await halted(2)
    assert (await later).epoch == 2
    with pytest.raises(NotSeen, match="a third halt: not seen within"):
        await watch.event("a third halt", subject, lambda data: data.epoch == 3, within=0.1)


async def test_a_run_that_is_not_in_the_log_is_not_seen(watch: Watch) -> None:
    with pytest.raises(NotSeen, match="T-01 in the run log: not seen within"):
        await watch.row("T-01 in the run log", "T-01", lambda row: True, within=0.2)


async def test_an_instance_that_never_applies_is_not_seen(watch: Watch) -> None:
    with pytest.raises(NotSeen, match="armed again: not seen within"):
        await watch.applied("armed again", subjects.agent_key(AGENT), 1, within=0.1)


def test_a_step_that_was_not_seen_is_named_and_fails_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(
        seen=[("the log fills", None), ("the halt is proved", "the halt contained: not seen within 10 s")]
    )
    with pytest.raises(typer.Exit) as end:
        _end(outcome, 12.0)
    assert end.value.exit_code == 1
    assert "not seen from outside: the halt is proved" in capsys.readouterr().err


def test_a_demo_in_which_all_was_seen_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    _end(Outcome(seen=[("the log fills", None)]), 12.0)
    assert "All of it in 12 s" in capsys.readouterr().out


async def test_the_demo_waits_until_its_instance_has_signed_off_and_not_for_ever(
    watch: Watch, js: JetStreamContext
) -> None:
    assert not await watch.signed_off(within=0.1)
    said = Presence(agent=AGENT, instance="vm-1", version="1", host="h", pid=7, applied={}, leaving=True)
    await js.publish(subjects.presence(AGENT, "vm-1"), control.encode(said))
    assert await watch.signed_off()
