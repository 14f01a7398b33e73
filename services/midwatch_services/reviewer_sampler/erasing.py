"""What the sampler forgets of a run that is erased: its ticket. That it was drawn stays: draws can be verified."""

from sqlalchemy.engine import Connection

from midwatch.contracts.erasure import ErasureResolved
from midwatch.runtime.erasure import Counts

from . import tables

TABLES = (tables.Queued.__tablename__,)
_queue = tables.Queued.__table__


def erase(conn: Connection, part: ErasureResolved) -> Counts:
    """Takes the runs out of the review queue: there is nothing left of them to read."""
    count = 0
    for run in part.runs:
        which = (_queue.c.agent == run.agent, _queue.c.run_id == run.run_id)
        count += conn.execute(_queue.update().where(*which).values(ticket=None, state="erased")).rowcount
    return {"review items": count}
