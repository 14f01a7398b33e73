"""`midwatch switch write-off`: an operator's word that a silent instance is dead, so that no halt waits for it."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from .bus import CONNECT, connected, run, unreached, user
from .output import OK, USAGE, JsonOption, clean, emit_json, fail
from .switch_output import say

if TYPE_CHECKING:
    from nats.js.api import RawStreamMsg

    from midwatch.contracts.control import Presence

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_WRONG_LAST = 10071
_LIMIT = 500  # characters


def write_off(
    instance: Annotated[str, typer.Argument(help="The instance, as `midwatch switch` names it.", metavar="INSTANCE")],
    agent: Annotated[str, typer.Option("--agent", help="Whose instance it is.")],
    reason: Annotated[str, typer.Option("--reason", help="How you know; people will read it.")],
    by: Annotated[str | None, typer.Option("--by", help="Who. Default: you, on this machine.")] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Say that a silent instance is dead, so that halts no longer wait for its word.

    Be sure: a process that hangs, or that is cut off from NATS, is silent too. One that is alive after all undoes this
    with its next sign of life. An instance that was heard within its lease is not written off.

    Example: midwatch switch write-off pod-7 --agent refund-desk --reason "its node is gone"
    """
    from midwatch.contracts.subjects import is_agent_name

    if not is_agent_name(agent) or not instance or any(c in ".*>" or c.isspace() for c in instance):
        fail("name the agent and the instance as `midwatch switch` shows them", USAGE)
    run(_write_off(agent, instance, f"{by or user()}: {reason}"[:_LIMIT], as_json))


async def _write_off(agent: str, instance: str, word: str, as_json: bool) -> int:
    import msgspec
    from nats.errors import Error as NatsError
    from nats.js.errors import APIError

    from midwatch.contracts import control, subjects
    from midwatch.errors import Temporary
    from midwatch.runtime.settings import Settings
    from midwatch_services.kill_switch.proof import last_words

    url, name = Settings().url, clean(f"{agent}/{instance}")
    subject = subjects.presence(agent, instance)
    try:
        async with connected(url) as nc:
            js = nc.jetstream(timeout=CONNECT)
            found = await last_words(nc, js, subject)
            last, seen_at, seq = _last(found) or (*_from_tables(agent, instance), 0)
            age = (datetime.now(UTC) - seen_at).total_seconds()
            if not last.leaving:
                if age <= last.lease:
                    fail(f"{name} was heard {age:.1f} s ago, within its lease of {last.lease:g} s: end its process")
                dead = msgspec.structs.replace(last, leaving=True, written_off_by=word)
                await js.publish(subject, control.encode(dead), headers={_EXPECTED: str(seq)})
    except APIError as error:
        if error.err_code == _WRONG_LAST:
            fail(f"{name} was heard just now: it is alive")
        return unreached(error, url, "Nothing was written off.")
    except (OSError, NatsError, TimeoutError, Temporary) as error:
        return unreached(error, url, "Nothing was written off.")
    if as_json:
        emit_json([{"agent": agent, "instance": instance, "changed": not last.leaving, "age_seconds": round(age, 3),
                    "written_off_by": last.written_off_by if last.leaving else word}])  # fmt: skip
    elif last.leaving:
        say(f"{name}: {'is written off already' if last.written_off_by else 'has signed off'}; left as it is")
    else:
        say(f"{name}: written off, silent for {age:.0f} s; no halt waits for it any more")
    return OK


def _last(found: "list[tuple[RawStreamMsg, datetime]]") -> "tuple[Presence, datetime, int] | None":
    """What the instance said last, when, and its place in the stream."""
    import msgspec

    from midwatch.contracts.control import Presence

    for message, seen_at in found:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return msgspec.json.decode(message.data or b"", type=Presence), seen_at, message.seq or 0
    return None


def _from_tables(agent: str, instance: str) -> "tuple[Presence, datetime]":
    """What kill-switch remembers of an instance that the server has forgotten, as after a restart."""
    from midwatch.contracts.control import Presence
    from midwatch_services.kill_switch import store

    from .tables import kill_switch_tables

    with kill_switch_tables("registry of instances") as database:
        known = database.read_now(store.instances)
    one = next((one for one in known if (one.agent, one.instance) == (agent, instance)), None)
    if one is None:
        fail(f"no instance {clean(instance)} of {clean(agent)} is known: `midwatch switch` lists those that are")
    said = Presence(
        agent=agent, instance=instance, version="", host="", pid=0, applied=dict(one.applied),
        runs_in_flight=list(one.running), draining=list(one.draining), leaving=one.left,
        lease=one.lease.total_seconds(), own_fallback=one.own_fallback, no_case=list(one.no_case),
    )  # fmt: skip
    return said, one.seen_at
