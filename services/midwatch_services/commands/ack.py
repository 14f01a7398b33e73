"""`midwatch ack`: a person takes an alert on. Needs NATS alone."""

from typing import TYPE_CHECKING, Annotated

import typer

from .bus import CONNECT, connected, run, unreached, user
from .output import OK, USAGE, JsonOption, clean, console, emit_json, fail

if TYPE_CHECKING:
    from midwatch_services.alerts_said import Said

_LIMIT = 500  # characters of a note
_SHOWN = 5  # alerts that are named where a prefix means several


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("ack")(ack)


def ack(
    alert: Annotated[str, typer.Argument(help="The alert's id, or its beginning.", metavar="ALERT")],
    note: Annotated[str, typer.Option(help="What you are doing; others will read it.")] = "",
    by: Annotated[str | None, typer.Option(help="Who. Default: you, on this machine.")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Take an alert on: its cause is escalated no further. It ends by itself when its condition does.

    Any alert of a cause stands for all of them. Alerts of the last 30 days are looked for in the stream itself, so no
    service and no database need be up.

    Example: midwatch ack 3f9a1c --note "rolling the prompt back"
    """
    if not alert:
        fail("name the alert: `midwatch alerts --open` lists them", USAGE)
    run(_ack(alert, note[:_LIMIT], by or user(), as_json))


async def _ack(alert: str, note: str, by: str, as_json: bool) -> int:
    from nats.errors import Error as NatsError

    from midwatch.contracts.envelope import utc_now
    from midwatch.errors import Temporary
    from midwatch.runtime.settings import Settings
    from midwatch_services import alerts_said

    url = Settings().url
    try:
        async with connected(url) as nc:
            one = _only(await alerts_said.read(nc, utc_now() - alerts_said.LOOKBACK, alert), alert)
            await alerts_said.acknowledge(nc.jetstream(timeout=CONNECT), one.agent, one.alert_id, by=by, note=note)
    except (OSError, NatsError, TimeoutError, Temporary) as error:
        return unreached(error, url, "Nothing was acknowledged.")
    raised, before = one.raised, one.acknowledged_by or None
    assert raised is not None
    if as_json:
        kept = {"rule": raised.rule, "severity": raised.severity, "title": raised.title, "run_id": raised.run_id}
        emit_json([{"alert_id": one.alert_id, "agent": one.agent, **kept, "by": by, "note": note,
                    "ended": one.resolved_at is not None, "acknowledged_before_by": before}])  # fmt: skip
        return OK
    state = "it is over already" if one.resolved_at else "nobody else is called for this cause"
    also = f"; {clean(before)} had taken it on before" if before else ""
    console.print(f"{clean(one.alert_id)}: acknowledged by {clean(by)}; {state}{also}", soft_wrap=True)
    console.print(f"  {clean(raised.title)}", soft_wrap=True)
    return OK


def _only(found: "dict[str, Said]", alert: str) -> "Said":
    from midwatch_services.alerts_said import LOOKBACK

    if alert in found:
        return found[alert]
    if not found:
        fail(f"no alert {clean(alert)!r} in the last {LOOKBACK.days} days: list them with `midwatch alerts --open`")
    if len(found) > 1:
        some = ", ".join(clean(name) for name in list(found)[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        fail(f"{clean(alert)!r} may mean {some}{more}: write more of it", USAGE)
    return next(iter(found.values()))
