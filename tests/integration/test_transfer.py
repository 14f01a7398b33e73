"""Export and import: the same log in another database, whole or not at all, and nothing altered comes back unseen."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

import transfer_helpers
from kept import NOW, alerts, count, placed, run_ids, save, shown, table
from logged import received
from midwatch.runtime import faults
from midwatch_services.logger import store
from midwatch_services.logger.evidence import chain_store
from midwatch_services.logger.keeping.export_store import exports_with, read_exports
from midwatch_services.logger.transfer.bring_back import OtherStreams
from midwatch_services.logger.transfer.check import first_problem
from midwatch_services.logger.transfer.export import FolderInUse
from midwatch_services.logger.transfer.layout import NoExport, NoParquet, read_manifest
from transfer_helpers import BOTH, Open, alter, brought, fill, made, rewrite, rewrite_lines

open_log = transfer_helpers.open_log  # a fixture of this file


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
