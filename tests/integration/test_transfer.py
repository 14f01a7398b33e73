"""Export and import: the same log in another database, whole or not at all, and nothing altered comes back unseen."""

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from kept import (
    NOW,
    alerts,
    count,
    empty_log,
    place_hold,
    placed,
    run_ids,
    save,
    save_alert_of,
    seal,
    shown,
    sqlite_url,
    table,
    whole_run,
)
from logged import received
from midwatch.contracts.erasure import ErasedRun, ErasureRequested
from midwatch.runtime import faults
from midwatch.runtime.database import Database
from midwatch_services.logger import store
from midwatch_services.logger.decide import text_of
from midwatch_services.logger.erasure import log as erasure_log
from midwatch_services.logger.erasure import proof
from midwatch_services.logger.erasure import store as erasures
from midwatch_services.logger.evidence import chain_store
from midwatch_services.logger.keeping.export_store import exports_with, read_exports
from midwatch_services.logger.transfer.bring_back import Import, OtherStreams, Report
from midwatch_services.logger.transfer.check import first_problem
from midwatch_services.logger.transfer.export import FolderInUse, export
from midwatch_services.logger.transfer.layout import Filter, Manifest, NoExport, NoParquet, read_manifest

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
Open = Callable[[str], Database]
ERASURE = "er-0123456789ab"


@pytest.fixture
def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens an empty log in a database of either kind."""
    opened: list[Any] = []

    def make(kind: str, name: str = "") -> Database:
        url = sqlite_url(tmp_path, f"log{len(opened)}")
        if kind == "postgresql":
            url = request.getfixturevalue("postgres_url")
        manager = empty_log(url)
        opened.append(manager)
        return manager.__enter__()

    yield make
    faults.set_hook(None)
    for manager in opened:
        manager.__exit__(None, None, None)


def fill(log: Database) -> None:
    """Two agents, three runs, an alert of a run and one of none; the chains as the sequencer would leave them."""
    save(log, whole_run("r-1", 40, ticket="T-1", customer="c-7"))
    called = received("model_called", run_id="r-1", seq=7, model="m", cost_usd="0.05", at=NOW, stored_at=NOW)
    save(log, [placed(called), *whole_run("r-2", 20), *whole_run("r-3", 1, agent="other")])
    save_alert_of(log, "r-1", 40)
    save_alert_of(log, None, 39)
    seal(log)


def made(log: Database, folder: Path, format: Any = "jsonl", **wanted: Any) -> Manifest:
    return export(log, folder, Filter(**wanted), format, by="sam", now=NOW)


def brought(log: Database, folder: Path, **more: Any) -> Report:
    return Import(log, folder, read_manifest(folder), NOW, **more).run()


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("sqlite", "sqlite"),
        pytest.param("sqlite", "postgresql", marks=pytest.mark.postgres),
        pytest.param("postgresql", "sqlite", marks=pytest.mark.postgres),
    ],
)
def test_an_export_is_the_same_log_in_another_database(
    open_log: Open, tmp_path: Path, here: str, there: str, format: str
) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install 'midwatch[parquet]'")
    first, second = open_log(here), open_log(there)
    fill(first)
    manifest = made(first, tmp_path / "out", format)
    assert first_problem(tmp_path / "out", manifest) is None
    report = brought(second, tmp_path / "out")
    assert (report.runs, report.events, report.alerts, report.chains, report.there) == (3, 10, 2, 2, 0)
    assert shown(second) == shown(first)
    for name, order in (("logger_events", "agent, id"), ("logger_runs", "agent, run_id"), ("logger_blocks", "1, 2")):
        assert table(second, name, order) == table(first, name, order)
    assert table(second, "logger_streams", "1") == table(first, "logger_streams", "1")
    assert table(second, "logger_cursors", "1") == table(first, "logger_cursors", "1")
    assert count(second, "logger_late") == 0


@pytest.mark.parametrize("kind", BOTH)
def test_an_import_that_is_repeated_changes_nothing(open_log: Open, tmp_path: Path, kind: str) -> None:
    log = open_log(kind)
    fill(log)
    made(log, tmp_path / "out")
    before = [table(log, name, "1, 2") for name in ("logger_runs", "logger_blocks", "logger_alerts")]
    report = brought(log, tmp_path / "out")
    assert (report.runs, report.events, report.alerts, report.there) == (0, 0, 0, 10)
    assert [table(log, name, "1, 2") for name in ("logger_runs", "logger_blocks", "logger_alerts")] == before


@pytest.mark.parametrize("kind", BOTH)
def test_what_was_removed_comes_back_and_the_chain_says_so(open_log: Open, tmp_path: Path, kind: str) -> None:
    log = open_log(kind)
    fill(log)
    before = shown(log)
    made(log, tmp_path / "out")
    for name in ("logger_events", "logger_runs"):
        log.write_now(lambda conn, name=name: conn.exec_driver_sql(f"DELETE FROM {name} WHERE run_id = 'r-1'"))  # type: ignore[misc]
    report = brought(log, tmp_path / "out")
    assert (report.runs, report.events, report.there) == (1, 4, 6)
    assert shown(log) == before
    blocks = log.read_now(lambda conn: list(chain_store.blocks(conn, "desk")))
    assert [block.kind for block in blocks] == ["events", "imported"]
    assert len(msgspec.json.decode(blocks[1].note)["places"]) == 4
    assert count(log, "logger_late") == 0  # the chain has their leaves


@pytest.mark.parametrize("kind", BOTH)
def test_an_export_brings_back_nothing_that_a_run_said_that_was_erased_here(
    open_log: Open, tmp_path: Path, kind: str
) -> None:
    log = open_log(kind)
    fill(log)
    made(log, tmp_path / "out")
    erased = ErasedRun(agent="desk", run_id="r-1", tickets=["T-1"])
    log.write_now(lambda conn: erasures.remember(conn, "er-1", [erased]))
    for name in ("events", "runs", "alerts"):
        log.write_now(lambda conn, name=name: conn.exec_driver_sql(f"DELETE FROM logger_{name}"))
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
    erase_as_asked(log)
    for name in ("events", "runs", "alerts"):
        log.write_now(lambda conn, name=name: conn.exec_driver_sql(f"DELETE FROM logger_{name}"))
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
    erase_as_asked(log)
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
    for name in ("events", "runs", "alerts"):
        log.write_now(lambda conn, name=name: conn.exec_driver_sql(f"DELETE FROM logger_{name}"))
    if hold:
        place_hold(log, **hold)
    wish = ErasureRequested(erasure_id=ERASURE, by="dpo", reason="asked for", **asked)
    log.write_now(lambda conn: erasures.add(conn, wish, text_of(NOW)))
    brought(log, tmp_path / "out")
    runs = {one["run_id"]: one for one in log.read_now(store.read_runs)}
    assert (runs["r-1"].get("input"), runs["r-1"]["customer"]) == (said, "c-7" if hold else None)
    assert runs["r-2"]["input"] == "Where is it?"


def erase_as_asked(log: Database) -> None:
    """Erases r-1, of ticket T-1, and forgets the ticket, as at the end of an erasure."""
    runs = [ErasedRun(agent="desk", run_id="r-1", tickets=["T-1"])]

    def work(conn: Any) -> None:
        asked = ErasureRequested(erasure_id=ERASURE, by="dpo", reason="asked for", agent="desk", run_id="r-1")
        erasures.add(conn, asked, NOW.isoformat())
        erasures.remember(conn, ERASURE, runs)
        done = erasure_log.erase(conn, ERASURE, runs, at=NOW.isoformat(), by="dpo")
        [found] = erasures.read(conn, ERASURE)
        found.proof = proof.build(found, [], [], sorted(done.alerts), {}, [], at=NOW, backup_days=30)
        erasures.save(conn, found)
        erasures.close(conn, ERASURE)

    log.write_now(work)


@pytest.mark.parametrize("kind", BOTH)
def test_events_that_a_run_lacks_are_folded_into_it(open_log: Open, tmp_path: Path, kind: str) -> None:
    first, second = open_log(kind), open_log("sqlite")
    fill(first)
    made(first, tmp_path / "out")
    second.write_now(
        lambda conn: conn.exec_driver_sql("INSERT INTO logger_streams (number, created) VALUES (1, 'the same')")
    )
    shutil.copytree(tmp_path / "out", tmp_path / "same")
    rewrite(tmp_path / "same" / "manifest.json", lambda one: {**one, "streams": [[1, "the same"]]})
    late = received("said", id="late", run_id="r-1", seq=9, by="customer", text="thanks", at=NOW, stored_at=NOW)
    save(second, [placed(late)])
    brought(second, tmp_path / "same")
    [run] = second.read_now(lambda conn: store.read_runs(conn, run_id="r-1"))
    assert (run["events"], run["messages"], run["cost_usd"], run["input"]) == (5, 3, "0.05", "Where is it?")
    assert brought(second, tmp_path / "same").events == 0
    assert second.read_now(lambda conn: store.read_runs(conn, run_id="r-1")) == [run]


@pytest.mark.parametrize("point", ["import.chained", "import.runs", "import.batch", "import.events"])
@pytest.mark.parametrize("kind", BOTH)
def test_an_import_that_dies_anywhere_is_finished_by_the_next(
    open_log: Open, tmp_path: Path, point: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midwatch_services.logger.transfer.bring_back.BATCH", 2)
    first, second = open_log("sqlite"), open_log(kind)
    fill(first)
    made(first, tmp_path / "out")

    def die(reached: str) -> None:
        if reached == point:
            raise RuntimeError(point)

    faults.set_hook(die)
    with pytest.raises(RuntimeError, match=point):
        brought(second, tmp_path / "out")
    faults.set_hook(None)
    brought(second, tmp_path / "out")
    assert shown(second) == shown(first)
    assert (run_ids(second), alerts(second)) == (run_ids(first), alerts(first))


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def rewrite_lines(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    lines = gzip.decompress(path.read_bytes()).splitlines()
    path.write_bytes(gzip.compress(b"\n".join(change(lines)) + b"\n"))


def alter(line: bytes, **columns: Any) -> bytes:
    return json.dumps({**json.loads(line), **columns}).encode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [lines[0], alter(lines[1], body="{}"), *lines[2:]], "record 2 of events.jsonl.gz: it does not"),
        (lambda lines: [alter(lines[0], seq=9), *lines[1:]], "event started"),
        (lambda lines: [lines[0], alter(lines[1], leaf=None), *lines[2:]], "record 2 of events.jsonl.gz: it has no"),
        (lambda lines: [lines[0], b"{", *lines[2:]], "line 2 of events.jsonl.gz cannot be read"),
        (lambda lines: lines[1:], "events.jsonl.gz is not the file that was written"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "events.jsonl.gz is not the file that was written"),
    ],
)  # fmt: skip
def test_an_altered_event_is_named(
    open_log: Open, tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    log = open_log("sqlite")
    fill(log)
    manifest = made(log, tmp_path / "out")
    rewrite_lines(tmp_path / "out" / "events.jsonl.gz", change)
    problem = first_problem(tmp_path / "out", manifest)
    assert problem is not None
    assert said in problem


def test_an_altered_event_is_named_though_the_manifest_was_altered_with_it(open_log: Open, tmp_path: Path) -> None:
    log = open_log("sqlite")
    fill(log)
    made(log, tmp_path / "out")
    path = tmp_path / "out" / "events.jsonl.gz"
    rewrite_lines(path, lambda lines: [*lines[:-1], alter(lines[-1], body='{"data": {}}')])
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def files(one: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**file, "sha256": sha256} if "events" in file["name"] else file for file in one["files"]]

    rewrite(tmp_path / "out" / "manifest.json", lambda one: {**one, "files": files(one)})
    problem = first_problem(tmp_path / "out", read_manifest(tmp_path / "out"))
    assert problem is not None
    assert "record 10 of events.jsonl.gz: it does not hash to its leaf" in problem


@pytest.mark.parametrize("name", ["runs.jsonl.gz", "alerts.jsonl.gz", "blocks.jsonl.gz"])
def test_any_other_file_that_was_altered_is_named(open_log: Open, tmp_path: Path, name: str) -> None:
    log = open_log("sqlite")
    fill(log)
    manifest = made(log, tmp_path / "out")
    data = bytearray((tmp_path / "out" / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "out" / name).write_bytes(data)
    assert (first_problem(tmp_path / "out", manifest) or "").startswith(name)


def test_what_is_forced_in_is_marked_in_the_chain(open_log: Open, tmp_path: Path) -> None:
    first, second = open_log("sqlite"), open_log("sqlite")
    fill(first)
    made(first, tmp_path / "out")
    rewrite_lines(tmp_path / "out" / "events.jsonl.gz", lambda lines: [alter(lines[0], seq=5), *lines[1:]])
    problem = first_problem(tmp_path / "out", read_manifest(tmp_path / "out"))
    brought(second, tmp_path / "out", unverified=problem)
    blocks = second.read_now(lambda conn: list(chain_store.blocks(conn, "desk")))
    assert msgspec.json.decode(blocks[-1].note)["unverified"] == problem


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"agent": "other"}, ["r-3"]),
        ({"run_id": "r-2"}, ["r-2"]),
        ({"since": "2026-10-20T00:00:00.000000Z"}, ["r-2", "r-3"]),
        ({"until": "2026-11-10T00:00:00.000000Z"}, ["r-1", "r-2"]),
        ({"agent": "desk", "since": "2026-10-20T00:00:00.000000Z"}, ["r-2"]),
        ({"run_id": "none"}, []),
    ],
)
def test_a_part_is_exported_by_what_is_asked_for(
    open_log: Open, tmp_path: Path, kind: str, wanted: dict[str, str], expected: list[str]
) -> None:
    log, other = open_log(kind), open_log("sqlite")
    fill(log)
    manifest = made(log, tmp_path / "out", **wanted)
    brought(other, tmp_path / "out")
    assert run_ids(other) == expected
    assert (manifest.counts["runs"], count(other, "logger_events")) == (len(expected), manifest.counts["events"])


@pytest.mark.parametrize("kind", BOTH)
def test_the_same_log_makes_the_same_files(open_log: Open, tmp_path: Path, kind: str) -> None:
    log = open_log(kind)
    fill(log)
    one, two = made(log, tmp_path / "one"), made(log, tmp_path / "two")
    assert [(file.name, file.sha256) for file in one.files] == [(file.name, file.sha256) for file in two.files]
    assert one.counts == {"events": 10, "runs": 3, "alerts": 2, "blocks": 2, "checkpoints": 0}


@pytest.mark.parametrize("point", ["export.recorded", "export.written"])
def test_an_export_that_was_broken_off_has_no_name_and_is_known(open_log: Open, tmp_path: Path, point: str) -> None:
    log = open_log("sqlite")
    fill(log)

    def die(reached: str) -> None:
        if reached == point:
            raise RuntimeError(point)

    faults.set_hook(die)
    with pytest.raises(RuntimeError, match=point):
        made(log, tmp_path / "out")
    faults.set_hook(None)
    assert not (tmp_path / "out").exists()
    assert [one["path"] for one in log.read_now(read_exports)] == [str(tmp_path / "out")]
    made(log, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "home") == ["out"]


def test_a_folder_that_holds_something_is_left_alone(open_log: Open, tmp_path: Path) -> None:
    log = open_log("sqlite")
    for name in ("out", "other.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").touch()
    for name in ("out", "other"):
        with pytest.raises(FolderInUse):
            made(log, tmp_path / name)
    assert log.read_now(read_exports) == []


@pytest.mark.parametrize("kind", BOTH)
def test_the_log_knows_which_exports_may_hold_a_run(open_log: Open, tmp_path: Path, kind: str) -> None:
    log = open_log(kind)
    fill(log)
    made(log, tmp_path / "whole")
    made(log, tmp_path / "other", agent="other")
    made(log, tmp_path / "one", run_id="r-1")
    made(log, tmp_path / "new", since="2026-11-20T00:00:00.000000Z")

    def having(*run_ids: str) -> list[str]:
        found = log.read_now(lambda conn: exports_with(conn, "desk", run_ids))
        return [Path(one["path"]).name for one in sorted(found, key=lambda one: str(one["path"]))]

    assert (having("r-1"), having("r-2"), having("r-9")) == (["new", "one", "whole"], ["whole"], [])
    [first] = [one for one in log.read_now(read_exports) if one["path"] == str(tmp_path / "whole")]
    assert (first["runs"], first["events"], first["alerts"], first["made_by"]) == (3, 10, 2, "sam")


def test_a_log_that_has_read_another_stream_is_not_mixed_with(open_log: Open, tmp_path: Path) -> None:
    first, second = open_log("sqlite"), open_log("sqlite")
    fill(first)
    for log, created in ((first, "2026-01-01"), (second, "2026-02-02")):
        log.write_now(
            lambda conn, at=created: conn.execute(sa.text("INSERT INTO logger_streams VALUES (1, :at)"), {"at": at})  # type: ignore[misc]
        )
    made(first, tmp_path / "out")
    with pytest.raises(OtherStreams, match="MIDWATCH_DATABASE_URL"):
        brought(second, tmp_path / "out")
    assert run_ids(second) == []


def test_what_is_no_export_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(NoExport, match=r"there is no manifest\.json in it"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(NoExport, match="cannot be read"):
        read_manifest(tmp_path)


def test_without_pyarrow_one_line_says_how_to_get_it(
    open_log: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    log = open_log("sqlite")
    with pytest.raises(NoParquet, match=r"pip install 'midwatch\[parquet\]'"):
        made(log, tmp_path / "out", "parquet")
    assert not list(tmp_path.glob("out*"))
