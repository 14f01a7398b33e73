"""What the pages of a halt say of what still moves, of what it stopped, and of halts that never were."""

import html
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from nats.js import JetStreamContext

from console_helpers import Person, Running
from helpers import eventually
from kill_switch_helpers import QUICK, heard, kill_switch, publish, put
from kill_switch_helpers import Pod as Said
from midwatch.runtime.settings import Settings
from midwatch.runtime.switchboard import Switchboard
from midwatch_services.console.access.roles import Role
from pods import arm
from proof_helpers import phase

DESK = {"what": "agent", "agent": "desk"}


def words(page: str) -> str:
    """What stands on a page, without its marks."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


async def _says(person: Person, path: str, text: str) -> str:
    async def look() -> str:
        page = (await person.get(path)).text
        assert text in words(page), words(page)
        return page

    return await eventually(look)


@pytest.mark.parametrize(
    ("moving", "draining", "headline", "row"),
    [
        (["r-1"], ["r-1"], "1 run still moves (a write is let finish) The", "a write is let finish: r-1"),
        (["r-1", "r-2"], ["r-1"], "2 runs still move The", "runs: r-2 · a write is let finish: r-1"),
    ],
)
async def test_once_all_have_confirmed_the_proof_says_what_still_moves_and_what_to_do(
    running: Running, board: Switchboard, js: JetStreamContext,
    moving: list[str], draining: list[str], headline: str, row: str,
) -> None:  # fmt: skip
    written = await board.halt_agent("desk", reason="it loops", by="ben")
    one = Said(js, lease=60)
    async with running.person(Role.VIEWER) as vera:

        async def look() -> str:
            await one.say({"agent.desk": written.revision}, runs_in_flight=moving, draining=draining)
            page = (await phase(vera, **DESK))[1]
            assert f"Not contained yet: {headline}" in words(page)
            return page

        page = await eventually(look)
    assert "What still moves, and what to do Wait" in words(page)
    assert "desk/pod-1 End this process: 7 on h." in words(page)
    told = re.search(r"<tr><th scope=\"row\"[^>]*><bdi>desk/pod-1.*?</tr>", page, re.S)
    assert told and words(told[0]).endswith(row)


async def test_the_history_names_the_run_that_still_moved(
    running: Running, board: Switchboard, js: JetStreamContext, settings: Settings
) -> None:
    one = Said(js, lease=60)
    patient = replace(QUICK, silent_after=timedelta(seconds=60))
    async with kill_switch(settings, patient), running.person(Role.VIEWER) as vera:
        await one.say({"fleet": 1})
        written = await board.halt_agent("desk", reason="it loops", by="ben")
        await one.say({"agent.desk": written.revision}, runs_in_flight=["r-1"], draining=["r-1"])
        await heard(js, "halted", "unconfirmed")
        page = await _says(vera, "/stop/history", "no : run r-1 of desk/pod-1 still moved")
        assert "<caption>1 halt</caption>" in page


async def test_what_a_halt_stopped_after_it_was_contained_is_told_as_the_history_has_it(
    running: Running, board: Switchboard, js: JetStreamContext, settings: Settings
) -> None:
    one = Said(js, lease=60)
    async with running.person(Role.VIEWER) as vera:
        async with kill_switch(settings):
            await publish(js, "started", "r-1")
            await one.say({"fleet": 1})
            written = await board.halt_agent("desk", reason="it loops", by="ben")
            await one.say({"agent.desk": written.revision})
            await heard(js, "halted", "contained")
            await publish(js, "finished", "r-1", seq=1, resolution="fell_back", epoch=written.revision)
            await _says(vera, "/stop/history", "1 run stopped, ")
        assert "1 run stopped" in words((await phase(vera, **DESK))[1])


async def test_how_much_a_halt_stopped_is_left_out_where_nobody_counted_it(
    running: Running, board: Switchboard
) -> None:  # fmt: skip
    await board.halt_agent("desk", reason="it loops", by="ben")
    async with running.person(Role.VIEWER) as vera:
        page = words((await phase(vera, **DESK))[1])
    assert "runs stopped" not in page
    assert "how many cases came of it, is not known here: Halts that were" in page


async def test_of_what_was_never_halted_no_halt_is_told(
    running: Running, board: Switchboard, js: JetStreamContext
) -> None:
    await arm(js)
    tool, run = {"what": "tool", "tool": "refund"}, {"what": "run", "run": "r-1"}
    asked = {"agent": DESK, "typo": DESK | {"agent": "dsek"}, "tool": DESK | tool, "run": DESK | run}
    async with running.person(Role.OPERATOR) as ann:
        told = {name: await phase(ann, **scope) for name, scope in asked.items()}
        assert {name: now for name, (now, _) in told.items()} == {
            "agent": "never", "typo": "absent", "tool": "never", "run": "never",
        }  # fmt: skip
        pages = {name: words(page) for name, (_, page) in told.items()}
        assert "Nobody has stopped it Nothing has halted desk so far." in pages["agent"]
        assert "It has no switch yet No card is applied for dsek" in pages["typo"]
        assert "Nobody has stopped it Nothing halts the tool refund of desk by itself." in pages["tool"]
        assert "Not halted Nothing halts the run r-1 of desk by itself." in pages["run"]
        assert not any("Halted by" in page or "Lifted by" in page or "contained" in page for page in pages.values())
        resume = words((await ann.get("/stop/resume?what=agent&agent=desk")).text)
        assert "so there is nothing to start." in resume and "Lifted by" not in resume
        await board.halt_agent("desk", reason="it loops", by="ben")
        await put(js, "agent.desk", b'{"state":"running","by":"ben"}')
        now, page = await phase(ann, **DESK)
        assert (now, "Lifted by ben, who gave no reason." in page) == ("lifted", True)


async def test_names_stand_in_a_sentence_as_in_one(running: Running, js: JetStreamContext) -> None:
    await arm(js)
    await Said(js, lease=60).say({"fleet": 0})
    async with running.person(Role.OPERATOR) as ann:
        sure = (await ann.get("/stop/confirm?what=tool&agent=desk&tool=refund&reason=x")).text
        assert "This will stop the tool refund of desk" in sure
        assert "Stopping all agents" in (await phase(ann, what="fleet"))[1]
        await _says(ann, "/stop", "0 of 1 process pod-1 : ")
