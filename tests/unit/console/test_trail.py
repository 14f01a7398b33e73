"""Each deed stands in the trail once: what was done on a page is recorded, and said by what it did."""

from datetime import UTC, datetime, timedelta
from typing import Literal

from midwatch_services.console.trail import Entry, once

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def deed(where: Literal["console", "bus"], action: str, seconds: float, epoch: int) -> Entry:
    detail = {"reason": "wrong refunds", "epoch": str(epoch)}
    return Entry(
        NOON + timedelta(seconds=seconds), "eva", "", action, "desk", "agent.desk", detail, where, run=None
    )  # fmt: skip


def told(*entries: Entry) -> list[tuple[str, str]]:
    return sorted((one.action, one.where) for one in once(entries))


def test_a_halt_on_a_page_stands_there_once_however_late_kill_switch_tells_it() -> None:
    page, said = deed("console", "switch.halt", 0.1, 12), deed("bus", "switch.halted", 900, 12)
    assert told(page, said) == [("switch.halt", "console")]


def test_a_resume_on_a_page_which_is_recorded_before_it_is_done_stands_there_once() -> None:
    page, said = deed("console", "switch.resume", 0, 12), deed("bus", "switch.resumed", 60, 13)
    assert told(page, said) == [("switch.resume", "console")]


def test_a_resume_on_the_command_line_before_it_is_another_one() -> None:
    said, page = deed("bus", "switch.resumed", -60, 9), deed("console", "switch.resume", 0, 12)
    assert told(said, page) == [("switch.resume", "console"), ("switch.resumed", "bus")]


def test_a_press_that_did_nothing_hides_no_resume_of_hours_later() -> None:
    page, said = deed("console", "switch.resume", 0, 12), deed("bus", "switch.resumed", 7 * 3600, 15)
    assert told(page, said) == [("switch.resume", "console"), ("switch.resumed", "bus")]
