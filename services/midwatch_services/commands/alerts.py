"""`midwatch alerts`: what needs a person, and what became of it."""

from typing import Annotated

import typer

from .output import JsonOption, emit_json, emit_table
from .runs import AgentOption, read_log


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("alerts")(alerts)


def alerts(
    agent: AgentOption = None,
    is_open: Annotated[bool, typer.Option("--open", help="Only those that are not resolved.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List alerts, the newest first.

    Example: midwatch alerts --open
    """
    from midwatch_services.logger import store

    found = read_log(lambda conn: store.read_alerts(conn, agent=agent, is_open=is_open))
    if as_json:
        emit_json(found)
        return
    rows = []
    for alert in found:
        state = "resolved" if alert["resolved_at"] else "acknowledged" if alert["acknowledged_at"] else "open"
        raised = alert["raised_at"][:19].replace("T", " ")
        rows.append({**alert, "raised": raised, "state": state, "run": alert["run_id"], "did": alert["action_taken"]})
    columns = ("raised", "state", "severity", "agent", "run", "rule", "title", "did")
    emit_table(columns, rows, empty="No alerts." if not is_open else "No open alerts.")
