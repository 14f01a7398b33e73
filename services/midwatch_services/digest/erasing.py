"""What the digest forgets of a run that is erased: every digest that names or quotes it. Without some of its sentences
it would not be the day any more, so its whole text goes."""

from datetime import date

from sqlalchemy.engine import Connection

from midwatch.contracts.erasure import ErasureResolved
from midwatch.contracts.reviews import DigestWritten
from midwatch.runtime.erasure import Counts
from midwatch.runtime.outbox import Outbox

from . import decide, store, tables, words

TABLES = (tables.Written.__tablename__, tables.Named.__tablename__, f"{store.PREFIX}_outbox")
ERASED = "Erased on request: this digest named runs that were erased since."


def erase(conn: Connection, part: ErasureResolved, outbox: Outbox) -> Counts:
    """Puts a line in the place of each digest; what waits to be published is not published any more. What was, the
    logger deletes from the stream."""
    found = sorted({key for run in part.runs for key in store.naming(conn, run.agent, run.run_id)})
    for day, agent in found:
        store.replace(conn, blank(day, agent))
        outbox.drop(conn, store.message_id(day, agent))
    return {"digests": len(found)}


def blank(day: str, agent: str) -> DigestWritten:
    """A digest that says only that it was erased."""
    title = words.title(agent, date.fromisoformat(day))
    return DigestWritten(
        agent=agent, date=day, title=title, words=decide.count_words(f"{title} {ERASED}"), brief=ERASED,
        text=f"{title}\n\n{ERASED}\n", markdown=f"# {title}\n\n{ERASED}\n",
        html=f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><p>{ERASED}</p></html>\n',
    )  # fmt: skip
