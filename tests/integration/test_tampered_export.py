"""An export is checked with nothing but its folder and the public key."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evidence_helpers import SealedLog, append_note, read_lines, told, write_lines
from midwatch_services.logger.evidence import chain
from midwatch_services.logger.evidence.export import NoExport, opened
from midwatch_services.logger.places import place


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SealedLog]:
    url = f"sqlite:///{tmp_path}/log.db"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres_url")).replace("postgresql://", "postgresql+psycopg://")
    made = SealedLog(url, tmp_path)
    made.fill()
    yield made
    made.database.close()


def edited(folder: Path, name: str, edit: Callable[[list[dict[str, Any]]], Any]) -> None:
    rows = read_lines(folder / f"{name}.jsonl.gz")
    edit(rows)
    write_lines(folder / f"{name}.jsonl.gz", rows)


def test_an_export_is_whole_in_any_order_of_its_lines(log: SealedLog) -> None:
    folder = log.export(log.folder / "export")
    edited(folder, "events", list.reverse)
    report = log.check_export(folder)
    assert (report.findings, report.sealed, report.blocks, report.checkpoints) == ([], 40, 8, 4)


def _flip(rows: list[dict[str, Any]]) -> None:
    rows[6]["body"] = rows[6]["body"].replace('"e-7"}', '"e-8"}')


def _swap(rows: list[dict[str, Any]]) -> None:
    rows[6]["place"], rows[10]["place"] = rows[10]["place"], rows[6]["place"]


def _insert(rows: list[dict[str, Any]]) -> None:
    rows.insert(3, {**rows[6], "id": "forged"})


def _twice(rows: list[dict[str, Any]]) -> None:
    rows.append(rows[6])


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        (_flip, [("altered", "e-7")]),
        (lambda rows: rows.pop(6), [("missing", "desk")]),
        (_insert, [("inserted", "forged")]),
        (_twice, [("inserted", "e-7")]),
        (_swap, [("reordered", "e-11"), ("reordered", "e-7")]),
    ],
)
def test_what_was_done_to_an_exported_record_is_named(
    log: SealedLog, edit: Callable[[list[dict[str, Any]]], Any], wanted: list[tuple[str, str]]
) -> None:
    folder = log.export(log.folder / "export")
    edited(folder, "events", edit)
    assert told(log.check_export(folder)) == wanted


def test_a_cut_export_is_shown_by_its_checkpoints_and_by_those_from_outside(log: SealedLog) -> None:
    folder = log.export(log.folder / "export")
    edited(folder, "events", lambda rows: rows.__delitem__(slice(30, None)))
    edited(folder, "blocks", lambda rows: [rows.remove(row) for row in [*rows] if row["number"] == 4])
    assert told(log.check_export(folder, outside=False)) == [("truncated", "desk"), ("truncated", "other")]
    lines = (folder / "checkpoints.jsonl").read_text().splitlines(keepends=True)
    (folder / "checkpoints.jsonl").write_text("".join(lines[:3]))
    assert log.check_export(folder, outside=False).is_whole  # nothing in the folder says that there was more
    assert {what for what, _ in told(log.check_export(folder))} == {"truncated"}


def test_a_damaged_file_is_named(log: SealedLog) -> None:
    folder = log.export(log.folder / "export")
    path = folder / "events.jsonl.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    texts = [finding.text for finding in log.check_export(folder).findings]
    assert any("events.jsonl.gz is damaged after line" in text or "cannot be read" in text for text in texts), texts


def test_removed_records_are_listed_in_an_export_too(log: SealedLog) -> None:
    log.run("DELETE FROM logger_events WHERE id = 'e-1'")
    append_note(log, "desk", "removal", chain.removal_note("old", "2026-11-22T13:00:00Z", [(place(1, 1),) * 2 + (1,)]))
    report = log.check_export(log.export(log.folder / "export"))
    assert (report.findings, report.removed) == ([], 1)


def test_a_part_of_a_log_is_whole_by_itself_and_its_runs_are_counted(log: SealedLog) -> None:
    folder = log.export(log.folder / "export")
    (folder / "manifest.json").write_text('{"filter": {"run_id": "r-desk"}}')
    for name in ("events", "runs"):
        edited(folder, name, lambda rows: [rows.remove(row) for row in [*rows] if row["agent"] == "other"])
    edited(folder, "blocks", lambda rows: [rows.remove(row) for row in [*rows] if row["agent"] == "other"])
    report = log.check_export(folder)
    assert (report.findings, report.sealed, report.elsewhere) == ([], 20, 0)
    edited(folder, "events", lambda rows: rows.pop(3))
    report = log.check_export(folder)
    assert [finding.text for finding in report.findings] == [
        "run r-desk of desk has 20 events by its row, and 19 are there"
    ]


def test_a_folder_that_is_no_export_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NoExport, match=r"events\.jsonl\.gz is not in it"), opened(tmp_path):
        pass
