"""What drift forgets of a run that is erased: its facts with the customer's words, and where findings show it. What
findings say stays: it is of many runs, and a word stands in it only where five customers or more wrote it."""

from sqlalchemy.engine import Connection

from midwatch.contracts.erasure import ErasureResolved
from midwatch.runtime.erasure import Counts

from . import store, tables

TABLES = (tables.Facts.__tablename__, tables.Finding.__tablename__)


def erase(conn: Connection, part: ErasureResolved) -> Counts:
    """Forgets the runs. The log was blanked before this is asked for, and what is read of it later is left out."""
    runs = [(run.agent, run.run_id) for run in part.runs]
    return {"runs": store.forget(conn, runs), "findings": store.unname(conn, runs)}
