"""Any one byte of any column of any event, changed in the file of the database, is found."""

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Connection

from evidence_helpers import SealedLog
from midwatch_services.logger import store
from midwatch_services.logger.evidence import source, verify
from midwatch_services.logger.evidence.findings import Report

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SealedLog]:
    folder = tmp_path_factory.mktemp("flips")
    made = SealedLog(f"sqlite:///{folder}/log.db", folder)
    made.fill(1)
    yield made
    made.database.close()


class Undone(Exception):
    """Takes the change back."""


def found_after(log: SealedLog, rowid: int, column: str, at: int, flip: int) -> Report:
    reports: list[Report] = []

    def work(conn: Connection) -> None:
        raw: Any = conn.connection.driver_connection
        query = f"SELECT typeof({column}), CAST({column} AS BLOB), {column} FROM logger_events WHERE rowid = ?"
        kind, data, value = raw.execute(query, (rowid,)).fetchone()
        if kind == "integer":
            flipped: Any = value ^ (flip << 8 * (at % 7))
            raw.execute(f"UPDATE logger_events SET {column} = ? WHERE rowid = ?", (flipped, rowid))
        else:
            changed = bytearray(data or b"\0")
            changed[at % len(changed)] ^= flip
            as_kind = "BLOB" if kind == "blob" else "TEXT"
            update = f"UPDATE logger_events SET {column} = CAST(? AS {as_kind}) WHERE rowid = ?"
            try:
                raw.execute(update, (bytes(changed), rowid))
            except sqlite3.IntegrityError:
                reject()  # another event has that id
        reports.append(verify.verify(source.Tables(conn), log.public(), log.outside()))
        raise Undone

    with pytest.raises(Undone):
        log.database.write_now(work)
    return reports[0]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 10), st.sampled_from(store.EVENT_COLUMNS), st.integers(0, 2000), st.integers(1, 255))
def test_one_changed_byte_anywhere_is_found(log: SealedLog, rowid: int, column: str, at: int, flip: int) -> None:
    report = found_after(log, rowid, column, at, flip)
    assert not report.is_whole, (rowid, column, at, flip)


@pytest.mark.parametrize("column", store.EVENT_COLUMNS)
def test_one_changed_byte_in_each_column_is_found_in_the_record_that_has_it(log: SealedLog, column: str) -> None:
    report = found_after(log, 3, column, 1, 1)
    assert not report.is_whole
    named = {finding.id for finding in report.findings} | {str(finding.place & 0xFFFF) for finding in report.findings}
    assert named & {"e-3", "3"}, report.findings
