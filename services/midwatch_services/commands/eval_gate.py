"""`midwatch eval gate|baseline|history`: whether a version got worse, what it is held against, and what was said."""

import asyncio
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .bus import CONNECT, connected, run, unreached, user
from .eval_make import ROOT, Root
from .output import FAILED, OK, USAGE, JsonOption, clean, emit_json, emit_table, fail

if TYPE_CHECKING:
    from midwatch.contracts.envelope import Envelope
    from midwatch.contracts.governance import EvalCompleted
    from midwatch_services.evals.gate import Gate
    from midwatch_services.evals.outcome import Results

NOT_JUDGED = USAGE  # what is neither passed nor failed, so that a script that ships on 0 alone is right
_COLUMNS = ("when", "version", "verdict", "cases", "passed", "baseline", "fell", "repaired", "by", "why")

T = TypeVar("T")
Agent = Annotated[str, typer.Argument(help="The agent's name.", metavar="AGENT")]


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("gate")(gate)
    app.command("baseline")(baseline)
    app.command("history")(history)


def gate(
    agent: Agent,
    version: Annotated[
        str | None, typer.Option(help="Judge this version's results. Default: the newest.", metavar="V")
    ] = None,
    result: Annotated[Path | None, typer.Option(help="Judge the results in this file.", metavar="FILE")] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="What to hold them against. Default: what `eval baseline` set.", metavar="VERSION|FILE"),
    ] = None,
    max_drop: Annotated[
        str,
        typer.Option(
            help="The largest drop that may go unseen where more cases fell than were repaired.", metavar="SHARE"
        ),
    ] = "10%",
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.", metavar="FILE")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a Markdown summary here.", metavar="FILE")] = None,
    publish: Annotated[
        bool | None, typer.Option("--publish/--no-publish", help="Say it on the bus. Default: where NATS answers.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who. Default: you, on this machine.")] = None,
    folder: Root = ROOT,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Hold a version's results against the baseline's, case by case. Exit code 0: passed; 1: failed, do not ship;
    2: not judged, which is not passed: too few cases to tell, no baseline, files that cannot be read, a wrong option.

    Example: midwatch eval gate refund-desk --junit gate.xml --markdown gate.md
    """
    drop = _share(max_drop)
    if version and result:
        fail("give --version or --result, not both", NOT_JUDGED)

    def whole() -> int:
        judged, new, before = _judge(agent, version, result, baseline, drop, folder)
        if as_json:
            emit_json([judged])
        else:
            from .eval_gate_output import show

            show(judged)
        wrote = _write(judged, new, junit, markdown)
        said = publish is False or _publish(judged, new, before, by or user(), is_asked=bool(publish))
        codes = {"passed": OK if wrote and said else NOT_JUDGED, "failed": FAILED}
        return codes.get(judged.verdict, NOT_JUDGED)

    if code := _or_not_judged(whole):
        raise typer.Exit(code)


def baseline(
    agent: Agent,
    version: Annotated[
        str | None, typer.Argument(help="The version that ships. Default: say which it is.", metavar="VERSION")
    ] = None,
    folder: Root = ROOT,
) -> None:
    """Say which version changes are held against, or make it another: the one that you have just shipped.

    It is kept in the file AGENT/baseline beside the cases; put it under version control with that version's results.

    Example: midwatch eval baseline refund-desk 2026-11-22
    """
    from midwatch_services.evals import gate_files

    _name(agent)
    if version is None:
        found = _or_not_judged(lambda: gate_files.baseline(folder, agent))
        if not found:
            fail(f"{agent} has no baseline: name one with `midwatch eval baseline {agent} VERSION`", USAGE)
        typer.echo(_line(found))
        return
    path = _or_not_judged(lambda: gate_files.set_baseline(folder, agent, version))
    typer.echo(_line(f"{path}: changes are held against {version} from now on"))


def history(agent: Agent, as_json: Annotated[bool, JsonOption] = False) -> None:
    """List what the gate said of an agent's versions, the newest first; from the bus.

    Example: midwatch eval history refund-desk
    """
    _name(agent)
    run(_history(agent, as_json))


def _judge(
    agent: str, version: str | None, result: Path | None, against: str | None, max_drop: float, folder: Path
) -> "tuple[Gate, Results, Results | None]":
    from midwatch_services.evals import gate_files
    from midwatch_services.evals.gate import Policy, compare

    _name(agent)
    if result is None:
        found = gate_files.of_version(folder, agent, version) if version else gate_files.newest(folder, agent)
    new = gate_files.read(result or found, agent)
    named = against or gate_files.baseline(folder, agent)
    before = None
    if named:
        is_file = against is not None and (against.endswith(".json") or Path(against).is_file())
        before = gate_files.read(Path(named) if is_file else gate_files.of_version(folder, agent, named), agent)
    if before == new:
        fail(_line(f"the results of {new.version} are the baseline itself: replay the change first"), NOT_JUDGED)
    return compare(new, before, policy=Policy(max_drop=max_drop)), new, before


def _write(judged: "Gate", new: "Results", junit: Path | None, markdown: Path | None) -> bool:
    from midwatch_services.evals import junit as document
    from midwatch_services.evals import summary

    done = True
    for path, body in ((junit, document.write(judged, new)), (markdown, summary.markdown(judged).encode())):
        try:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(body)
        except OSError as error:
            sys.stderr.write(f"midwatch: {path} cannot be written: {(error.strerror or str(error)).lower()}\n")
            done = False
    return done


def _publish(judged: "Gate", new: "Results", before: "Results | None", by: str, *, is_asked: bool) -> bool:
    """Whether it is on the bus, or need not be."""
    from midwatch_services.evals.verdicts import completed

    return asyncio.run(_say(judged.agent, completed(judged, new, before, by))) or not is_asked


async def _say(agent: str, envelope: "Envelope[EvalCompleted]") -> bool:
    from nats.errors import Error as NatsError

    from midwatch.contracts import codec, subjects
    from midwatch.errors import Temporary
    from midwatch.runtime.settings import Settings
    from midwatch_services.evals.verdicts import history

    url = Settings().url
    try:
        async with connected(url) as nc:
            if envelope.id in {one.id for one in await history(nc, agent)}:
                return True  # the server itself knows a repeat for two minutes only
            js = nc.jetstream(timeout=CONNECT)
            headers = {subjects.MSG_ID: envelope.id, subjects.CONTENT_TYPE: subjects.CLOUDEVENTS_JSON}
            await js.publish(subjects.evaluated(agent, "completed"), codec.encode(envelope), headers=headers)
    except (OSError, NatsError, TimeoutError, Temporary) as error:
        unreached(error, url, "The verdict was not published.")
        return False
    return True


async def _history(agent: str, as_json: bool) -> int:
    import msgspec
    from nats.errors import Error as NatsError

    from midwatch.errors import Temporary
    from midwatch.runtime.settings import Settings
    from midwatch_services.evals.verdicts import history

    url = Settings().url
    try:
        async with connected(url) as nc:
            found = (await history(nc, agent))[::-1]
    except (OSError, NatsError, TimeoutError, Temporary) as error:
        return unreached(error, url, "Nothing was read.")
    if as_json:
        emit_json({"id": one.id, "at": one.at, **msgspec.to_builtins(one.data)} for one in found)
        return OK
    emit_table(_COLUMNS, (_row(one.at, one.data) for one in found), empty=(
        f"Nothing was published of {agent} yet: `midwatch eval gate {agent} --publish` says it on the bus."
    ))  # fmt: skip
    return OK


def _row(at: str, said: "EvalCompleted") -> dict[str, Any]:
    when = f"{at[:16].replace('T', ' ')} UTC"
    return {
        "when": when, "version": said.version, "verdict": said.verdict, "cases": said.cases, "passed": said.passed,
        "baseline": f"{said.baseline_passed} ({said.baseline})" if said.baseline else "none",
        "fell": len(said.regressions), "repaired": len(said.repaired), "by": said.by, "why": said.why,
    }  # fmt: skip


def _or_not_judged(work: Callable[[], T]) -> T:
    """What `work` makes; whatever goes wrong in it is no verdict, and must not look like one."""
    from midwatch.errors import MidwatchError

    try:
        return work()
    except (MidwatchError, OSError) as error:
        fail(_line(str(error)), NOT_JUDGED)
    except typer.Exit:
        raise
    except Exception:
        traceback.print_exc()
        raise typer.Exit(NOT_JUDGED) from None


def _share(text: str) -> float:
    number = text.strip().removesuffix("%")
    try:
        share = float(number) / 100
    except ValueError:
        share = 0.0
    if not (text.strip().endswith("%") and 0 < share < 1):
        fail(f"--max-drop {clean(text)!r} is no share: write 10%", NOT_JUDGED)
    return share


def _name(agent: str) -> None:
    from midwatch.contracts.subjects import is_agent_name
    from midwatch.errors import BadAgentName

    if not is_agent_name(agent):
        fail(str(BadAgentName(agent=agent)), USAGE)


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
