"""`midwatch ack`: a person takes an alert on. Needs NATS alone."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .bus import CONNECT, connected, run, unreached, user
from .output import OK, USAGE, JsonOption, clean, console, emit_json, fail

if TYPE_CHECKING:
    from nats.aio.client import Client

LOOKBACK = timedelta(days=30)
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

    from midwatch.contracts import codec, subjects
    from midwatch.contracts.governance import AlertAcknowledged
    from midwatch.errors import Temporary
    from midwatch.runtime.settings import Settings

    url = Settings().url
    try:
        async with connected(url) as nc:
            found, ended, taken = await _find(nc, alert)
            alert_id, raised = _only(found, alert)
            data = AlertAcknowledged(alert_id=alert_id, by=by, note=note)
            envelope = codec.envelope("alert", "acknowledged", data, source="/people/command-line")
            js = nc.jetstream(timeout=CONNECT)
            headers = {subjects.MSG_ID: envelope.id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
            await js.publish(subjects.alert(raised["agent"], "acknowledged"), codec.encode(envelope), headers=headers)
    except (OSError, NatsError, TimeoutError, Temporary) as error:
        return unreached(error, url, "Nothing was acknowledged.")
    before = taken.get(alert_id)
    if as_json:
        emit_json([{**raised, "by": by, "note": note, "ended": alert_id in ended, "acknowledged_before_by": before}])
        return OK
    state = "it is over already" if alert_id in ended else "nobody else is called for this cause"
    also = f"; {clean(before)} had taken it on before" if before else ""
    console.print(f"{clean(alert_id)}: acknowledged by {clean(by)}; {state}{also}", soft_wrap=True)
    console.print(f"  {clean(raised['title'])}", soft_wrap=True)
    return OK


def _only(found: dict[str, dict[str, Any]], alert: str) -> tuple[str, dict[str, Any]]:
    if alert in found:
        return alert, found[alert]
    if not found:
        fail(f"no alert {clean(alert)!r} in the last {LOOKBACK.days} days: list them with `midwatch alerts --open`")
    if len(found) > 1:
        some = ", ".join(clean(name) for name in list(found)[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        fail(f"{clean(alert)!r} may mean {some}{more}: write more of it", USAGE)
    return next(iter(found.items()))


async def _find(nc: "Client", alert: str) -> tuple[dict[str, dict[str, Any]], set[str], dict[str, str]]:
    """The alerts whose id begins so, those of them that are over, and who took which on."""
    from midwatch.contracts import codec, subjects
    from midwatch.contracts.codec import Refused
    from midwatch.contracts.envelope import utc_now
    from midwatch.runtime.stream_read import read_range

    found: dict[str, dict[str, Any]] = {}
    ended: set[str] = set()
    taken: dict[str, str] = {}
    since = utc_now() - LOOKBACK
    async for batch in read_range(nc, subjects.GOVERNANCE, subjects.alert("*", "*"), since):
        for stored in batch:
            if alert.encode() not in stored.body:
                continue
            try:
                data = codec.decode(stored.subject, stored.body).data
            except Refused:
                continue
            if not data.alert_id.startswith(alert):
                continue
            agent, event = stored.subject.split(".")[2:]
            if event == "raised":
                kept = {"rule": data.rule, "severity": data.severity, "title": data.title, "run_id": data.run_id}
                found[data.alert_id] = {"alert_id": data.alert_id, "agent": agent, **kept}
            elif event == "resolved":
                ended.add(data.alert_id)
            else:
                taken.setdefault(data.alert_id, data.by)
    return found, ended, taken
