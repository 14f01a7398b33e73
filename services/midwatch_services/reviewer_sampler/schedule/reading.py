"""The run log, as the sampler reads it: which runs cost more than their card lets pass. It never writes there."""

from decimal import Decimal

from sqlalchemy.engine import Connection

from midwatch_services.logger import daily
from midwatch_services.logger import store as log

from ..decide import Run
from .besides import Asked, Found


def costly(conn: Connection, agent: str, above: Decimal, since: str) -> list[Asked]:
    """The agent's live runs that began since then and cost more than `above`, as far as their cost is known."""
    found = [row for row in log.read_costs(conn, agent, since, float(above)) if Decimal(row[3]) > above]
    erased = daily.read_erased(conn, [(agent, row[0]) for row in found])
    return [
        Asked(Run(agent, run_id, "live"), Found("cost", f"${Decimal(cost).quantize(Decimal('0.01'))}"), ticket, version)
        for run_id, ticket, version, cost in found
        if (agent, run_id) not in erased
    ]
