"""`midwatch alerts`: what needs a person, what became of it, and who was told."""

from typing import Annotated, Any, Literal

import typer

from .output import USAGE, JsonOption, clean, console, emit_json, emit_table, fail
from .runs import AgentOption, read_log

Severity = Literal["page", "ticket", "info"]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    group = typer.Typer(invoke_without_command=True)
    group.callback()(alerts)
    group.command("show")(show)
    app.add_typer(group, name="alerts")


def alerts(
    context: typer.Context,
    agent: AgentOption = None,
    severity: Annotated[Severity | None, typer.Option(help="Only alerts of this severity.")] = None,
    is_open: Annotated[bool, typer.Option("--open", help="Only those that are not resolved.")] = False,
    grouped: Annotated[bool, typer.Option("--grouped", help="One line a cause: agent, rule and severity.")] = False,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List alerts, the newest first; `alerts show ALERT` tells all of one.

    Example: midwatch alerts --open --severity page
    """
    if context.invoked_subcommand is not None:
        return
    from midwatch_services.logger import store

    found = read_log(lambda conn: store.read_alerts(conn, agent=agent, is_open=is_open))
    found = [one for one in found if severity is None or one["severity"] == severity]
    if grouped:
        _grouped(found, as_json)
        return
    if as_json:
        emit_json(found)
        return
    rows = [
        {
            **alert, "raised": _minute(alert["raised_at"]), "state": _state(alert), "run": alert["run_id"],
            "did": alert["action_taken"], "again": alert["repeats"] or "", "alert": alert["alert_id"][:12],
        }
        for alert in found
    ]  # fmt: skip
    columns = ("alert", "raised", "state", "severity", "agent", "run", "rule", "title", "did", "again")
    emit_table(columns, rows, empty="No alerts." if not is_open else "No open alerts.")


def _grouped(found: list[dict[str, Any]], as_json: bool) -> None:
    """Alerts of one cause together, the cause with the newest alert first."""
    causes: dict[tuple[str, str, str], dict[str, Any]] = {}
    for one in found:
        cause = causes.setdefault(
            (one["agent"], one["rule"], one["severity"]),
            {
                "agent": one["agent"], "rule": one["rule"], "severity": one["severity"], "alerts": 0, "open": 0,
                "repeats": 0, "last_at": one["raised_at"], "last_alert": one["alert_id"], "title": one["title"],
            },
        )  # fmt: skip
        cause["alerts"] += 1
        cause["open"] += one["resolved_at"] is None
        cause["repeats"] += one["repeats"]
        cause["first_at"] = one["raised_at"]
    if as_json:
        emit_json(causes.values())
        return
    columns = ("agent", "rule", "severity", "open", "alerts", "repeats", "first", "last", "title")
    rows = [{**one, "first": _minute(one["first_at"]), "last": _minute(one["last_at"])} for one in causes.values()]
    emit_table(columns, rows, empty="No alerts.")


def show(
    alert: Annotated[str, typer.Argument(help="The alert's id, or its beginning.", metavar="ALERT")],
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Tell all of one alert: what it is about, who was told, when, and with what result.

    Example: midwatch alerts show 3f9a1c
    """
    from midwatch_services.logger import store

    found = [one for one in read_log(store.read_alerts) if one["alert_id"].startswith(alert)]
    found = [one for one in found if one["alert_id"] == alert] or found
    if not found:
        fail(f"no alert {clean(alert)!r} in the log: list them with `midwatch alerts`")
    if len(found) > 1:
        some = ", ".join(clean(one["alert_id"]) for one in found[:5])
        fail(f"{clean(alert)!r} may mean {some}{'…' * (len(found) > 5)}: write more of it", USAGE)
    one = found[0]
    group, deliveries = _deliveries(one["alert_id"])
    if as_json:
        emit_json([{**one, "group": group, "deliveries": deliveries}])
        return
    _tell(one, group)
    columns = ("decided", "what", "channel", "result", "sent", "attempts", "error")
    rows = [
        {**row, "decided": _time(row["decided_at"]), "sent": row["sent_at"] and _time(row["sent_at"])}
        for row in deliveries
    ]
    console.print()
    emit_table(
        columns,
        rows,
        empty="Nobody was told of it." if group else "The pager knows nothing of it, or it is for nobody to be told.",
    )


def _tell(one: dict[str, Any], group: dict[str, Any] | None) -> None:
    lines = [
        ("", one["title"]), ("alert", one["alert_id"]), ("state", _state(one)), ("severity", one["severity"]),
        ("agent", one["agent"]), ("rule", one["rule"]), ("run", one["run_id"]), ("ticket", one["ticket"]),
        ("done", one["action_taken"]), ("evidence", one["evidence"]), ("raised", _minute(one["raised_at"])),
        ("taken on", one["acknowledged_at"] and f"{_minute(one['acknowledged_at'])} by {one['acknowledged_by']}"),
        ("over", one["resolved_at"] and f"{_minute(one['resolved_at'])}: {one['resolved_reason']}"),
    ]  # fmt: skip
    if group is not None and group["alerts"] > 1:
        lines.append(("its cause", f"{group['alerts']} alerts, {group['open']} of them open"))
    for name, value in lines:
        if value:
            console.print(f"{clean(name):10} {clean(value)}" if name else clean(value), soft_wrap=True)


def _deliveries(alert_id: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The alert's group and what was sent of it, as far as the pager's tables can be read."""
    from sqlalchemy.engine import Connection
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from midwatch.contracts import subjects
    from midwatch.errors import MidwatchError
    from midwatch.runtime.database import Database
    from midwatch.runtime.settings import Settings
    from midwatch_services.pager import queue, store, words

    def work(conn: Connection) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        known = store.alert(conn, words.key(alert_id))
        groups = store.groups(conn, [known.group_id]) if known and known.group_id else []
        if not groups:
            return None, []
        (group,) = groups
        shown = {
            "group_id": group.group_id, "alerts": group.alerts, "open": group.open, "repeats": group.repeats,
            "acknowledged_by": group.acknowledged_by or None, "next_at": group.next_at, "ended_at": group.ended_at,
        }  # fmt: skip
        return shown, queue.of_group(conn, group.group_id)

    try:
        database = Database(Settings().database_for(subjects.PAGER), name=subjects.PAGER, must_exist=True)
    except MidwatchError:
        return None, []  # no pager has run here
    try:
        return database.read_now(work)
    except (OperationalError, ProgrammingError):
        return None, []
    except MidwatchError as error:
        fail(str(error))
    finally:
        database.close()


def _state(alert: dict[str, Any]) -> str:
    return "resolved" if alert["resolved_at"] else "acknowledged" if alert["acknowledged_at"] else "open"


def _minute(at: str) -> str:
    return at[:19].replace("T", " ")


def _time(at: Any) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"
