"""`midwatch doctor`: what is up, how far behind each consumer is, what died, and how to mend it."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from . import doctor_evidence
from .output import FAILED, JsonOption, clean, console, emit_json

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext

    from midwatch.runtime.settings import Settings

FAR_BEHIND = 10_000  # messages
LETTERS_READ = 50
FRESH = timedelta(days=1)  # a dead letter older than this is still shown, but no longer a fault
ASK_WITHIN = 5.0  # seconds
APPLY = "run `midwatch topology apply`"


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at. `mend` says what to do where it is not `ok`."""

    check: str
    name: str
    ok: bool
    detail: str
    mend: str = ""
    figures: dict[str, Any] = {}


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("doctor")(doctor)


def doctor(as_json: Annotated[bool, JsonOption] = False) -> None:
    """Look at NATS, streams, consumers, dead letters, the switch, your prices and services, and say what is wrong.

    Exit code 0 only if all is well. Services are found by run.json of `midwatch up`, or at the addresses in
    MIDWATCH_HTTP. Dead letters of the last day count as wrong, older ones are only shown.

    Example: midwatch doctor --json
    """
    import asyncio

    from midwatch.runtime.settings import Settings

    findings = asyncio.run(_examine(Settings()))
    if as_json:
        emit_json(findings)
    else:
        for one in findings:
            _print(one)
    if not all(one.ok for one in findings):
        raise typer.Exit(FAILED)


def _print(finding: Finding) -> None:
    state = "[green]ok   [/green]" if finding.ok else "[bold red]WRONG[/bold red]"
    line = f"{state}  {clean(finding.check):14}{clean(finding.name):20}  {clean(finding.detail)}"
    console.print(line, soft_wrap=True)
    if finding.mend:
        console.print(f"       → {clean(finding.mend)}", soft_wrap=True)


async def _examine(settings: "Settings") -> list[Finding]:
    import asyncio

    from nats.errors import Error as NatsError

    from midwatch.errors import MidwatchError
    from midwatch.runtime.broker import connection, without_credentials

    where = without_credentials(settings.url)
    findings = []
    try:
        async with connection(settings.url) as nc:
            async for finding in _examine_nats(nc, where):
                findings.append(finding)  # noqa: PERF401, what was found before an error is kept
    except MidwatchError as error:
        findings.append(Finding("nats", where, False, str(error).partition(": ")[0], str(error).partition(": ")[2]))
    except (NatsError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        findings.append(Finding("nats", where, False, f"it stopped answering: {why}", "look at the server's log"))
    own = [_prices(settings), await asyncio.to_thread(_pager, settings)]
    own += await asyncio.to_thread(doctor_evidence.look, settings, datetime.now(UTC))
    return [*findings, *own, *await _services(settings)]


def _prices(settings: "Settings") -> Finding:
    """The operator's own prices, as a service with these settings reads them."""
    from midwatch.runtime import price_book
    from midwatch.runtime.price_file import PriceErrors

    path, needed = settings.prices_path, settings.prices_file is not None
    try:
        found = price_book.find(path, needed=needed)
    except PriceErrors as error:
        count = len(error.lines)
        mistakes = "1 mistake" if count == 1 else f"{count} mistakes"
        detail = f"{mistakes}, so that the prices read before it hold. The first: {error.lines[0]}"
        mend = "`midwatch prices check` names all; once mended, services read it by themselves"
        return Finding("prices", path.name, False, detail, mend, {"mistakes": error.lines})
    count = len(found.overrides)
    detail = "none of your own" if not count else "1 of your own" if count == 1 else f"{count} of your own"
    notes = f". {'; '.join(found.notes)}" if found.notes else ""
    figures = {"file": str(path), "prices": count, "notes": found.notes}
    return Finding("prices", path.name, True, f"{detail}, the rest by genai-prices{notes}", figures=figures)


async def _examine_nats(nc: "Client", where: str) -> AsyncIterator[Finding]:
    import time

    from nats.errors import NoRespondersError
    from nats.js.errors import ServiceUnavailableError

    from midwatch.runtime.broker import round_trip

    began = time.perf_counter()
    with suppress(NoRespondersError):  # without JetStream that is the answer
        await round_trip(nc, within=ASK_WITHIN)
    rtt = (time.perf_counter() - began) * 1000
    version = nc.connected_server_version
    text = f"{version.major}.{version.minor}.{version.patch}"
    yield Finding("nats", where, True, f"version {text}, answers in {rtt:.1f} ms", figures={"rtt_ms": round(rtt, 3)})
    js = nc.jetstream()
    try:
        account = await js.account_info()
    except (ServiceUnavailableError, NoRespondersError):
        yield Finding("jetstream", where, False, "JetStream is off", "start the server with `-js`")
        return
    yield Finding(
        "jetstream", where, True, f"{account.streams} streams, {_size(account.storage)} on disk",
        figures={"streams": account.streams, "storage": account.storage, "memory": account.memory},
    )  # fmt: skip
    for part in (_streams(js), _consumers(js), _dead_letters(js), _switch(js)):
        async for finding in part:
            yield finding


async def _streams(js: "JetStreamContext") -> AsyncIterator[Finding]:
    from nats.js.errors import NotFoundError

    from midwatch.runtime.topology import BUCKETS, STREAMS

    declared = [("stream", s.name, s.name) for s in STREAMS] + [("bucket", b.name, b.stream) for b in BUCKETS]
    for kind, name, stream in declared:
        try:
            state = (await js.stream_info(stream)).state
        except NotFoundError:
            yield Finding(kind, name, False, "it is not there", APPLY)
            continue
        figures = {"messages": state.messages, "bytes": state.bytes}
        yield Finding(kind, name, True, f"{state.messages:,} messages, {_size(state.bytes)}", figures=figures)


async def _consumers(js: "JetStreamContext") -> AsyncIterator[Finding]:
    from nats.js.errors import NotFoundError

    from midwatch.runtime.topology import CONSUMERS

    for consumer in CONSUMERS:
        try:
            info = await js.consumer_info(consumer.stream, consumer.name)
        except NotFoundError:
            yield Finding("consumer", consumer.name, False, "it is not there", APPLY)
            continue
        pending, unacknowledged = info.num_pending or 0, info.num_ack_pending or 0
        lag = pending + unacknowledged
        figures = {"lag": lag, "pending": pending, "ack_pending": unacknowledged, "readers": info.num_waiting or 0}
        detail, mend = f"{lag:,} behind", ""
        if pending and not info.num_waiting and not unacknowledged:
            detail += ", and nobody reads"
            mend = f"start it with `midwatch up`, or with `midwatch run` where {consumer.name} has a machine of its own"
        elif lag > FAR_BEHIND:
            mend = "look again: if the figure grows, the service is slower than the agents; its /metrics say where"
        yield Finding("consumer", consumer.name, not mend, detail, mend, figures)


async def _dead_letters(js: "JetStreamContext") -> AsyncIterator[Finding]:
    from nats.js.errors import NotFoundError

    from midwatch.contracts import subjects
    from midwatch.contracts.envelope import utc_now

    try:
        info = await js.stream_info(subjects.DEAD, subjects_filter=subjects.dead(">"))
    except NotFoundError:
        return  # said above
    if not info.state.messages:
        yield Finding("dead letters", subjects.DEAD, True, "none")
    newest = [letter async for letter in _newest(js, info.state.first_seq, info.state.last_seq)]
    for subject, count in sorted((info.state.subjects or {}).items()):
        service = subject.rsplit(".", 1)[1]
        letters = [letter for letter in newest if subjects.dead(letter.service) == subject]
        figures: dict[str, Any] = {"count": count}
        if not letters:
            yield Finding("dead letters", service, True, f"{count:,}, none of them recent", figures=figures)
            continue
        last = letters[0]
        reasons = Counter(letter.reason for letter in letters)
        figures |= {
            "reasons": dict(reasons),
            "last_error": last.error,
            "last_at": last.at,
            "last_subject": last.subject,
        }
        told = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common())
        detail = f"{count:,}; of the newest: {told}. The last, at {_minute(last.at)} on {last.subject}: {last.error}"
        fresh = utc_now() - last.at < FRESH
        mend = (
            "`midwatch dead list` names them. Mend the sender (or the service, where the reason is `failed`), then "
            f"`midwatch dead retry --service {service}`, or `drop`"
        )
        yield Finding("dead letters", service, not fresh, detail, mend if fresh else "", figures)


async def _newest(js: "JetStreamContext", first: int, last: int) -> AsyncIterator[Any]:
    from nats.js.errors import NotFoundError

    from midwatch.contracts import subjects
    from midwatch.contracts.control import DeadLetter

    for sequence in range(last, max(first, last - LETTERS_READ + 1, 1) - 1, -1):
        try:
            message = await js.get_msg(subjects.DEAD, seq=sequence, direct=True)
            yield msgspec.json.decode(message.data or b"", type=DeadLetter)
        except (NotFoundError, msgspec.MsgspecError):
            continue  # purged meanwhile, or put there by hand


async def _switch(js: "JetStreamContext") -> AsyncIterator[Finding]:
    from nats.errors import NoRespondersError
    from nats.js.errors import NotFoundError, ServiceUnavailableError

    from midwatch.contracts import control, subjects

    key = subjects.key_subject(subjects.SWITCH, subjects.FLEET_KEY)
    resume = "once you know why: `midwatch resume --fleet`"
    try:
        message = await js.get_msg(subjects.key_stream(subjects.SWITCH), subject=key, direct=True)
    except (NotFoundError, ServiceUnavailableError, NoRespondersError):
        yield Finding("switch", "fleet", False, "the key is absent, so no agent runs", APPLY)
        return
    record = control.decode_record(message.data or b"")
    if (message.headers or {}).get("KV-Operation"):
        yield Finding("switch", "fleet", False, "the key was removed, so no agent runs", resume)
    elif record is None:
        yield Finding("switch", "fleet", False, "the key cannot be read, so no agent runs", resume)
    elif record.state == "halted":
        detail = f"halted by {record.by or 'someone'}: {record.reason or 'no reason given'}"
        yield Finding("switch", "fleet", False, detail, resume, {"state": "halted", "epoch": message.seq})
    else:
        yield Finding("switch", "fleet", True, "running", figures={"state": "running", "epoch": message.seq})


async def _services(settings: "Settings") -> list[Finding]:
    import asyncio

    urls = dict(_addresses(settings))
    if not urls:
        mend = "start them with `midwatch up`, or name their addresses in MIDWATCH_HTTP"
        return [Finding("service", "all", False, "nothing is known of the services", mend)]
    return list(await asyncio.gather(*(asyncio.to_thread(_ready, name, url) for name, url in urls.items())))


def _pager(settings: "Settings") -> Finding:
    """Whether anybody is told of alerts. Secrets are not looked for: those of the pager are not in this shell."""
    from midwatch_services.pager.load import PagerFileErrors, read

    path = settings.pager_yaml
    if not path.exists():
        mend = "`midwatch pager new` writes a start, `midwatch test-page` tries it"
        return Finding(
            "pager",
            path.name,
            True,
            f"nobody is paged, unless the pager reads another file: there is no {path}",
            mend,
            {"channels": 0},
        )
    try:
        policy = read(path, None).policy
    except PagerFileErrors as error:
        return Finding("pager", path.name, False, error.lines[0], "`midwatch pager check` names every mistake in it")
    routes = ", ".join(route.name for route in policy.routes)
    return Finding("pager", path.name, True, f"routes: {routes}", figures={"channels": len(policy.channels)})


def _addresses(settings: "Settings") -> Iterator[tuple[str, str]]:
    from midwatch import locate

    if settings.http:
        yield from ((url, url) for url in (one.strip().rstrip("/") for one in settings.http.split(",")) if url)
    else:
        yield from locate.run_file(settings.home).get("http", {}).items()


def _ready(name: str, url: str) -> Finding:
    from urllib.error import HTTPError
    from urllib.request import urlopen

    if not url.startswith(("http://", "https://")):
        return Finding("service", name, False, f"{url!r} is no address", "write http://host:port in MIDWATCH_HTTP")
    try:
        with urlopen(f"{url}/readyz", timeout=ASK_WITHIN):  # noqa: S310
            return Finding("service", name, True, "ready", figures={"url": url})
    except HTTPError as error:
        with error:
            detail = error.read(4000).decode(errors="replace")
        mend = "mend what it names; it goes on by itself as soon as that is back"
        return Finding("service", name, False, f"not ready: {detail}", mend)
    except OSError as error:
        mend = "start it with `midwatch up` or `midwatch run`; its log says why it ended"
        return Finding("service", name, False, f"no answer at {url} ({error})", mend)


def _size(count: int) -> str:
    size, unit = float(count), 0
    while size >= 1000 and unit < 4:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} B" if unit == 0 else f"{size:.1f} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"


def _minute(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M UTC")
