"""What a halt stopped: live runs that ended by it, as their events tell."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy.engine import Connection

from midwatch.contracts import subjects
from midwatch.contracts.runs import Finished
from midwatch.runtime.delivery import Received
from midwatch.runtime.outbox import Outbox

from . import store
from .registry import RunKey

KEEP = timedelta(days=60)  # for which a run is remembered to be counted; a stream may deliver it again for 30 days


def newest(batch: Sequence[Received]) -> int:
    """The newest epoch that the events name; 0 where they name none."""
    return max((getattr(received.event.data, "epoch", None) or 0 for received in batch), default=0)


def stopped(batch: Sequence[Received]) -> dict[RunKey, int]:
    """The runs that a key of the switch ended, with its epoch. Which key it was, the event does not say."""
    found: dict[RunKey, int] = {}
    for received in batch:
        event, data = received.event, received.event.data
        if (
            isinstance(data, Finished)
            and data.mode == "live"
            and data.resolution in ("halted", "fell_back")
            and data.epoch is not None
        ):
            found.setdefault((event.agent, data.run_id), data.epoch)
    return found


def save(conn: Connection, outbox: Outbox, runs: Mapping[RunKey, int]) -> None:
    """Counts each of the runs once, however often it is told of."""
    ids = {(agent, f"stopped:{run_id}"): (agent, run_id) for agent, run_id in runs}
    for identity in outbox.fresh(conn, list(ids)):
        agent, run_id = ids[identity]
        store.note_stopped(conn, runs[agent, run_id], keys=subjects.switch_keys(agent), run_id=run_id)
