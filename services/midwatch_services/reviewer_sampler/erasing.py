"""What the sampler forgets of a run that is erased: its ticket, and what people wrote of it. That it was drawn and how
it was judged stays: draws can be verified, and rates are what they were."""

from sqlalchemy.engine import Connection

from midwatch.contracts.erasure import ErasureResolved
from midwatch.runtime.erasure import Counts

from . import tables

TABLES = (tables.Queued.__tablename__, tables.Judgement.__tablename__)
_queue, _judgements, _claims = tables.Queued.__table__, tables.Judgement.__table__, tables.Claim.__table__


def erase(conn: Connection, part: ErasureResolved) -> Counts:
    """Takes the runs out of the review queue: there is nothing left of them to read."""
    items = judgements = 0
    for run in part.runs:
        which = (_queue.c.agent == run.agent, _queue.c.run_id == run.run_id)
        items += conn.execute(_queue.update().where(*which).values(ticket=None, state="erased")).rowcount
        said = (_judgements.c.agent == run.agent, _judgements.c.run_id == run.run_id)
        judgements += conn.execute(_judgements.update().where(*said).values(note="", corrected="")).rowcount
        held = (_claims.c.agent == run.agent, _claims.c.run_id == run.run_id)
        conn.execute(_claims.update().where(*held).values(over=1))
    return {"review items": items, "judgements": judgements}
