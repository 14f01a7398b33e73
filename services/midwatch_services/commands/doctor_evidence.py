"""What `midwatch doctor` says of the proof of the run log: whether it is sealed, signed, and kept elsewhere."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from midwatch.runtime.settings import Settings

    from .doctor import Finding

LAG = timedelta(minutes=1)  # an event that waits longer for the sequencer is a fault
UNTAKEN = timedelta(minutes=5)  # a checkpoint that a sink has not taken for so long is one


def look(settings: "Settings", now: datetime) -> "list[Finding]":
    """One line a part. Nothing where there is no run log yet on this machine."""
    from sqlalchemy.exc import DBAPIError

    from midwatch.contracts import subjects
    from midwatch.errors import MidwatchError
    from midwatch.runtime.database import Database

    try:
        database = Database(settings.database_for(subjects.LOGGER), name=subjects.LOGGER, must_exist=True)
    except MidwatchError:
        return []
    try:
        return database.read_now(lambda conn: [_sealed(conn, now), *_kept(conn, settings, now), *_key(settings)])
    except (MidwatchError, DBAPIError):
        return []  # the logger itself says what its database has; before its first start there are no tables
    finally:
        database.close()


def _sealed(conn: "Connection", now: datetime) -> "Finding":
    from midwatch_services.logger.evidence import sequencer

    from .doctor import Finding

    oldest = sequencer.oldest_unsealed(conn)
    waits = now - datetime.fromisoformat(oldest) if oldest else timedelta()
    figures = {"unsealed": sequencer.unsealed(conn), "lag_seconds": round(waits.total_seconds(), 3)}
    if waits <= LAG:
        return Finding("evidence", "sealing", True, f"{figures['unsealed']:,} events to seal", figures=figures)
    detail = f"{figures['unsealed']:,} events to seal, the oldest stored {_span(waits)} ago"
    mend = "look at the logger: it seals what is acknowledged, once a second; its log says what stands in the way"
    return Finding("evidence", "sealing", False, detail, mend, figures)


def _kept(conn: "Connection", settings: "Settings", now: datetime) -> "list[Finding]":
    from midwatch_services.logger.evidence import chain_store, checkpoint_file, checkpoint_store, sinks

    from .doctor import Finding

    last = checkpoint_store.last(conn)
    if last is None:
        return []
    path = settings.checkpoints_path
    try:
        in_file = checkpoint_file.last(path)
    except OSError:
        in_file = None
    taken = {"file": in_file.number if in_file else 0, "nats": chain_store.cursor(conn, sinks.NATS_CURSOR)}
    if settings.checkpoint_url:
        taken["url"] = chain_store.cursor(conn, sinks.url_cursor(settings.checkpoint_url))
    findings = []
    for name, number in taken.items():
        waiting = checkpoint_store.after(conn, number, 1) if number < last.number else []
        waits = now - datetime.fromisoformat(waiting[0].at) if waiting else timedelta()
        figures = {"taken": number, "newest": last.number}
        if waits <= UNTAKEN:
            findings.append(Finding("checkpoints", name, True, f"{number:,} of {last.number:,} taken", figures=figures))
            continue
        detail = f"{number:,} of {last.number:,} taken, the next waits since {_span(waits)}"
        findings.append(Finding("checkpoints", name, False, detail, _MENDS[name], figures))
    return findings


_MENDS = {
    "file": "the logger adds to MIDWATCH_CHECKPOINT_FILE; set it here as it is there, and look at its disk and rights",
    "nats": "run `midwatch topology apply`, and give the logger the role of deploy/nats/roles.conf",
    "url": "whatever answers at MIDWATCH_CHECKPOINT_URL must answer with a success; each is posted until it does",
}


def _key(settings: "Settings") -> "list[Finding]":
    from midwatch.errors import MidwatchError
    from midwatch_services.logger.evidence import keys

    from .doctor import Finding

    path = settings.evidence_key
    if not path.exists():
        return []
    try:
        key = keys.load_or_make(path)
    except PermissionError:
        return []  # the logger's, and not to be read from here
    except (MidwatchError, OSError) as error:
        first, _, rest = str(error).partition(": ")
        return [Finding("checkpoints", "key", False, first, rest or "the logger must be able to read it")]
    return [Finding("checkpoints", "key", True, f"signed with {key.id}", figures={"key": key.id})]


def _span(waits: timedelta) -> str:
    seconds = int(waits.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
