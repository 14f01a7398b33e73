"""Wires the logger: two readers, one database."""

from midwatch.contracts import subjects
from midwatch.runtime.delivery import RunReader
from midwatch.runtime.service import Context, Service

from . import handlers
from .policy import POLICY


def build(context: Context) -> None:
    """Reads run events and governance into the log."""
    context.read_runs(subjects.LOGGER, handlers.on_events(context.database), batch=POLICY.batch)
    # The run log's halts come from these: a message that fails must come again, so they are read by the same loop.
    governance = RunReader(
        context.nc, context.js, stream=subjects.GOVERNANCE, consumer=subjects.LOGGER_GOVERNANCE, service=context.name,
        handle=handlers.on_governance(context.database), decode=handlers.decode_alert,
    )  # fmt: skip
    context.background(governance.run, name="reader governance")


SERVICE = Service(name=subjects.LOGGER, build=build)
