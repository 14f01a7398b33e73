"""Importing after an erasure: nothing that it covers comes back, and nothing else is blanked."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Connection

import transfer_helpers
from kept import NOW, ago, place_hold, placed, save, save_alert_of, shown, table, whole_run
from logged import received
from midwatch.contracts.erasure import ErasedRun, ErasureRequested
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch_services.logger import store
from midwatch_services.logger.decide import text_of
from midwatch_services.logger.erasure import log as erasure_log
from midwatch_services.logger.erasure import proof
from midwatch_services.logger.erasure import store as erasures
from transfer_helpers import BOTH, Open, alter, brought, fill, made, rewrite_lines

ERASURE = "er-0123456789ab"
SAID = "Where is it?"
open_log = transfer_helpers.open_log  # a fixture of this file


def erase(log: Database, at: datetime = NOW, **asked: Any) -> None:
    """Erases what was asked for, and forgets what that was, as at the end of an erasure."""

    def work(conn: Connection) -> None:
        wish = ErasureRequested(erasure_id=ERASURE, by="dpo", reason="asked for", **asked)
        erasures.add(conn, wish, text_of(at))
        runs = erasures.find(conn, wish)
        erasures.remember(conn, ERASURE, runs)
        done = erasure_log.erase(conn, ERASURE, runs, at=text_of(at), by="dpo")
        [found] = erasures.read(conn, ERASURE)
        keys = [(run.agent, run.run_id) for run in runs]
        found.proof = proof.build(found, keys, [], sorted(done.alerts), {}, [], at=at, backup_days=30)
        found.phase, found.asked = "done", None
        erasures.save(conn, found)
        erasures.close(conn, ERASURE)

    log.write_now(work)


def forget_kinds(log: Database) -> None:
    """Leaves the erasure as a release did that had no kinds."""
    log.write_now(lambda conn: conn.exec_driver_sql("UPDATE logger_erasures SET matched = NULL"))


def remove(log: Database, *run_ids: str) -> None:
    """Removes these runs from the log, or everything, as when they are past."""
    which = f"WHERE run_id IN ({', '.join(repr(one) for one in run_ids)})" if run_ids else ""
    for name in ("events", "runs", "alerts"):
        log.write_now(lambda conn, name=name: conn.exec_driver_sql(f"DELETE FROM logger_{name} {which}"))


def inputs(log: Database) -> dict[str, str | None]:
    """What each run that the log has was asked."""
    return {run["run_id"]: run.get("input") for run in log.read_now(store.read_runs)}


def titles(log: Database) -> dict[str, str]:
    """What each alert that the log has says."""
    return {one["alert_id"]: one["title"] for one in log.read_now(store.read_alerts)}


def go_on(log: Database, run_id: str, days: float, seq: int = 8, **fields: Any) -> None:
    """Another event of a run, stored so many days ago."""
    at = ago(days)
    event = received("said", run_id=run_id, seq=seq, by="agent", text="more", at=at, stored_at=at, **fields)
    save(log, [placed(event)])


@pytest.mark.parametrize("kind", BOTH)
def test_an_export_brings_back_nothing_that_a_run_said_that_was_erased_here(
    open_log: Open, tmp_path: Path, kind: str
) -> None:
    log = open_log(kind)
    fill(log)
    made(log, tmp_path / "out")
    erased = ErasedRun(agent="desk", run_id="r-1", tickets=["T-1"])
    log.write_now(lambda conn: erasures.remember(conn, "er-1", [erased]))
    remove(log)
    report = brought(log, tmp_path / "out")
    assert (report.runs, report.events, report.alerts, report.erased) == (3, 10, 2, 4)
    columns = log.read_now(lambda conn: conn.exec_driver_sql("SELECT body, ticket, note FROM logger_events").all())
    kept = json.dumps([shown(log), [list(row) for row in columns]])
    assert "T-1" not in kept
    assert '"c-7"' not in kept  # ids have such letters in them
    notes = [str(row) for row in table(log, "logger_blocks", "1, 2") if "er-1" in str(row)]
    assert len(notes) == 1
    again = brought(log, tmp_path / "out")
    assert (again.events, again.erased, again.there) == (0, 0, 10)


@pytest.mark.parametrize("wanted", [{}, {"run_id": "r-2"}])
def test_an_export_brings_back_no_alert_of_another_run_that_names_an_erased_ticket(
    open_log: Open, tmp_path: Path, wanted: dict[str, str]
) -> None:
    log = open_log("sqlite")
    fill(log)
    save_alert_of(log, "r-2", 20, ticket="T-1", title="T-1 came again")
    made(log, tmp_path / "out", **wanted)
    erase(log, agent="desk", run_id="r-1")
    remove(log)
    brought(log, tmp_path / "out")
    [alert] = log.read_now(lambda conn: store.read_alerts(conn, run_id="r-2"))
    assert (alert["title"], alert.get("ticket"), alert["rule"]) == ("erased", None, "budget_run")
    [run] = log.read_now(lambda conn: store.read_runs(conn, run_id="r-2"))
    assert run["input"] == "Where is it?"  # what it said was not erased


def test_an_export_brings_back_no_alert_of_an_erased_ticket_that_the_log_had_removed_before(
    open_log: Open, tmp_path: Path
) -> None:
    log = open_log("sqlite")
    fill(log)
    save_alert_of(log, "r-2", 20, ticket="T-1", title="T-1 came again")
    made(log, tmp_path / "out")
    log.write_now(lambda conn: conn.exec_driver_sql("DELETE FROM logger_alerts"))
    erase(log, agent="desk", run_id="r-1")
    brought(log, tmp_path / "out")
    kept = json.dumps(log.read_now(store.read_alerts))
    assert "T-1" not in kept
    assert "erased" in kept


@pytest.mark.parametrize("asked", [{"customer": "c-7"}, {"ticket": "T-1"}])
@pytest.mark.parametrize(("hold", "said"), [(None, None), ({"customer": "c-7"}, "Where is it?")])
def test_an_export_brings_back_nothing_of_a_run_that_the_log_had_removed_before_it_was_erased_unless_it_is_held(
    open_log: Open, tmp_path: Path, asked: dict[str, str], hold: dict[str, str] | None, said: str | None
) -> None:
    log = open_log("sqlite")
    fill(log)
    made(log, tmp_path / "out")
    remove(log)
    if hold:
        place_hold(log, **hold)
    wish = ErasureRequested(erasure_id=ERASURE, by="dpo", reason="asked for", **asked)
    log.write_now(lambda conn: erasures.add(conn, wish, text_of(NOW)))
    brought(log, tmp_path / "out")
    runs = {one["run_id"]: one for one in log.read_now(store.read_runs)}
    assert (runs["r-1"].get("input"), runs["r-1"]["customer"]) == (said, "c-7" if hold else None)
    assert runs["r-2"]["input"] == "Where is it?"


def test_what_was_stored_after_an_erasure_was_asked_for_comes_back_whole(open_log: Open, tmp_path: Path) -> None:
    log = open_log("sqlite")
    fill(log)
    save(log, whole_run("r-4", 1, ticket="T-1"))
    save_alert_of(log, "r-2", 1, ticket="T-1", title="T-1 came again")
    save_alert_of(log, "r-4", 1, ticket="T-1", title="T-1 cost much")
    go_on(log, "r-1", 1)
    made(log, tmp_path / "out")
    remove(log)
    erase(log, ago(10), customer="c-7")
    brought(log, tmp_path / "out")
    assert inputs(log) == {"r-1": None, "r-2": SAID, "r-3": SAID, "r-4": SAID}
    said = titles(log)
    assert (said["alert-r-1"], said["alert-r-2"], said["alert-r-4"]) == ("erased", "T-1 came again", "T-1 cost much")


@pytest.mark.parametrize(
    ("hold", "kept"),
    [
        (None, None),
        ({"customer": "c-9"}, SAID),
        ({"ticket": "T-0"}, SAID),
        ({"ticket": "T-9"}, SAID),
        ({"customer": "c-7"}, None),
    ],
)
def test_a_run_that_names_an_erased_ticket_in_another_event_comes_without_its_words_unless_it_is_held(
    open_log: Open, tmp_path: Path, hold: dict[str, str] | None, kept: str | None
) -> None:
    log = open_log("sqlite")
    fill(log)
    save(log, whole_run("r-4", 30, customer="c-9", ticket="T-0"))
    go_on(log, "r-4", 30, ticket="T-8")
    go_on(log, "r-4", 30, 9, ticket="T-9")
    made(log, tmp_path / "out")
    remove(log)
    if hold:
        place_hold(log, **hold)
    erase(log, ticket="T-8")
    brought(log, tmp_path / "out")
    assert inputs(log) == {"r-1": SAID, "r-2": SAID, "r-3": SAID, "r-4": kept}


def test_a_case_that_was_handed_over_in_another_event_comes_back_without_its_words(
    open_log: Open, tmp_path: Path
) -> None:
    log = open_log("sqlite")
    fill(log)
    go_on(log, "r-1", 39, ticket="T-8")
    save(log, whole_run("r-4", 30, ticket="T-0"))
    go_on(log, "r-4", 30, ticket="T-8")
    save(log, whole_run("r-5", 30, ticket="T-8", customer="c-9"))
    made(log, tmp_path / "out")
    remove(log)
    erase(log, customer="c-7")
    brought(log, tmp_path / "out")
    assert inputs(log) == {"r-1": None, "r-2": SAID, "r-3": SAID, "r-4": None, "r-5": SAID}


def test_a_damaged_file_hides_no_run_that_an_erasure_covers(open_log: Open, tmp_path: Path) -> None:
    log = open_log("sqlite")
    fill(log)
    save(log, whole_run("r-4", 30, ticket="T-1"))
    made(log, tmp_path / "out")
    remove(log)
    erase(log, customer="c-7")
    rewrite_lines(tmp_path / "out" / "events.jsonl.gz", lambda lines: [*lines[:-1], b"{"])
    brought(log, tmp_path / "out", unverified="it was altered")
    named = [run["ticket"] or run["customer"] for run in log.read_now(store.read_runs)]
    assert named == [None, None, None, None]


@pytest.mark.parametrize("ticket", ["T-5", "T-1"])
@pytest.mark.parametrize("earlier_release", [False, True])
def test_a_customer_and_a_ticket_that_were_erased_together_do_not_come_back(
    open_log: Open, tmp_path: Path, ticket: str, earlier_release: bool
) -> None:
    log = open_log("sqlite")
    fill(log)
    go_on(log, "r-1", 39, ticket="T-5")
    save(log, whole_run("r-4", 30, ticket=ticket, customer="c-9"))
    made(log, tmp_path / "out")
    remove(log)
    erase(log, customer="c-7", ticket=ticket)
    if earlier_release:
        forget_kinds(log)
    brought(log, tmp_path / "out")
    assert inputs(log) == {"r-1": None, "r-2": SAID, "r-3": SAID, "r-4": None}


@pytest.mark.parametrize(
    ("asked", "earlier_release", "other"),
    [
        ({"ticket": "T-6"}, False, None),
        ({"ticket": "T-6"}, True, None),
        ({"agent": "desk", "run_id": "T-6"}, False, SAID),
    ],
)
def test_a_ticket_is_told_from_a_run_of_the_same_name(
    open_log: Open, tmp_path: Path, asked: dict[str, str], earlier_release: bool, other: str | None
) -> None:
    log = open_log("sqlite")
    save(log, [*whole_run("T-6", 40, ticket="T-6"), *whole_run("r-4", 40, ticket="T-6")])
    made(log, tmp_path / "out")
    remove(log, "r-4")
    erase(log, **asked)
    if earlier_release:
        forget_kinds(log)
    brought(log, tmp_path / "out")
    assert inputs(log) == {"T-6": None, "r-4": other}


@pytest.mark.parametrize("asked", [{"customer": "c-7"}, {"agent": "desk", "run_id": "r-1"}])
@pytest.mark.parametrize("point", ["import.chained", "import.runs", "import.events"])
def test_what_is_erased_while_an_import_runs_is_erased_at_its_end(
    open_log: Open, tmp_path: Path, asked: dict[str, str], point: str
) -> None:
    log = open_log("sqlite")
    fill(log)
    save_alert_of(log, "r-2", 20, ticket="T-1", title="T-1 came again")
    made(log, tmp_path / "out")
    remove(log)
    faults.set_hook(lambda reached: erase(log, **asked) if reached == point else None)
    brought(log, tmp_path / "out")
    assert inputs(log) == {"r-1": None, "r-2": SAID, "r-3": SAID}
    assert (titles(log)["alert-r-1"], titles(log)["alert-r-2"]) == ("erased", "erased")
    assert "T-1" not in json.dumps(shown(log))
    late = log.read_now(erasures.has_late)  # it goes on in all other places where it had not found the run
    assert late == (point == "import.chained" and "run_id" not in asked)


def test_a_run_that_is_held_is_not_erased_at_the_end_of_an_import(open_log: Open, tmp_path: Path) -> None:
    log = open_log("sqlite")
    fill(log)
    made(log, tmp_path / "out")
    remove(log)
    place_hold(log, customer="c-7")
    faults.set_hook(lambda reached: erase(log, customer="c-7") if reached == "import.chained" else None)
    brought(log, tmp_path / "out")
    assert inputs(log)["r-1"] == SAID


def test_an_alert_that_cannot_be_read_comes_back_blank_once_something_was_erased(
    open_log: Open, tmp_path: Path
) -> None:
    log = open_log("sqlite")
    fill(log)
    save_alert_of(log, "r-2", 20, title="T-1 came again")
    made(log, tmp_path / "out")
    erase(log, agent="desk", run_id="r-1")
    remove(log)

    def change(lines: list[bytes]) -> list[bytes]:
        return [alter(line, raised='{"T-1') if b"alert-r-2" in line else line for line in lines]

    rewrite_lines(tmp_path / "out" / "alerts.jsonl.gz", change)
    report = brought(log, tmp_path / "out", unverified="it was altered")
    assert report.unread == "the alert alert-r-2, which was left blank"
    assert sorted(titles(log)) == ["alert-39", "alert-r-1"]
    assert "T-1" not in str(table(log, "logger_alerts", "alert_id"))
