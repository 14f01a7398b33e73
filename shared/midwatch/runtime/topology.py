"""Streams, consumers and buckets: declared here once, and made so by `apply`.

No subscriber declares anything: a second declaration elsewhere would silently rewrite the limits of these.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nats.errors import NoRespondersError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DeliverPolicy,
    DiscardPolicy,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)  # fmt: skip
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from midwatch.contracts import control, subjects
from midwatch.contracts.envelope import utc_now
from midwatch.errors import MidwatchError

from .settings import Settings

DUPLICATE_WINDOW = 120.0  # seconds; older repeats are the consumers' to recognise
PRESENCE_MAX_AGE = 3600.0  # seconds for which the registry remembers an instance that fell silent
ACK_WAIT = 30.0  # seconds
MAX_ACK_PENDING = 10_000
SMALL = 64 * 1024  # bytes
LARGE = 1024 * 1024  # bytes

_WRONG_LAST_SEQUENCE = 10071  # JetStream's code for a compare-and-set that came too late
_DAY = 86_400.0


class NoJetStream(MidwatchError):
    """JetStream is off on this NATS server: start it with `-js`, or with a `jetstream` block in its configuration."""


Action = Literal["created", "updated", "unchanged", "refused"]


@dataclass(frozen=True, slots=True)
class Change:
    """What `apply` did with one stream, bucket, consumer or key. `detail`: what changed, or why not and what to do."""

    kind: Literal["stream", "bucket", "consumer", "key"]
    name: str
    action: Action
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of events. `keep` gives seconds, `max_bytes` bytes, both by the settings."""

    name: str
    about: str
    takes: tuple[str, ...]
    keep: Callable[[Settings], float]
    max_bytes: Callable[[Settings], int] = lambda _: -1
    memory: bool = False
    last_only: bool = False  # one message a subject
    atomic: bool = False
    max_msg_size: int = (
        -1
    )  # bytes; -1 leaves it to the server's max_payload, so that readers can say what was too large

    def config(self, settings: Settings) -> StreamConfig:
        """The stream as the server is to have it."""
        return StreamConfig(
            name=self.name, description=self.about, subjects=list(self.takes), retention=RetentionPolicy.LIMITS,
            storage=StorageType.MEMORY if self.memory else StorageType.FILE, num_replicas=settings.replicas,
            max_age=self.keep(settings), max_bytes=self.max_bytes(settings), max_msg_size=self.max_msg_size,
            max_msgs_per_subject=1 if self.last_only else -1, discard=DiscardPolicy.OLD,
            duplicate_window=DUPLICATE_WINDOW, allow_direct=True, allow_atomic=self.atomic,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bucket:
    """A key-value bucket: a stream with one subject a key. `republish`: where core NATS hears of each write."""

    name: str
    about: str
    history: int
    republish: str | None = None
    create_only: bool = False  # the server refuses a second write of a key
    keep: Callable[[Settings], float] = lambda _: 0.0
    max_msg_size: int = -1

    @property
    def stream(self) -> str:
        """Name of the stream behind the bucket."""
        return subjects.key_stream(self.name)

    def config(self, settings: Settings) -> StreamConfig:
        """The stream behind the bucket as the server is to have it."""
        keys = subjects.key_subject(self.name, ">")
        return StreamConfig(
            name=self.stream, description=self.about, subjects=[keys], retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE, num_replicas=settings.replicas, max_age=self.keep(settings), max_bytes=-1,
            max_msg_size=self.max_msg_size, max_msgs_per_subject=self.history, discard=DiscardPolicy.NEW,
            discard_new_per_subject=self.create_only, duplicate_window=DUPLICATE_WINDOW, allow_direct=True,
            allow_rollup_hdrs=not self.create_only, deny_delete=True,
            republish=RePublish(src=keys, dest=f"{self.republish}.>") if self.republish else None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable pull consumer with explicit acknowledgement, named after its service."""

    name: str
    stream: str
    about: str
    only: tuple[str, ...] = ()  # subjects; all of the stream's where none is named

    def config(self) -> ConsumerConfig:
        """The consumer as the server is to have it. Attempts are counted by delivery.py, not by the server."""
        return ConsumerConfig(
            durable_name=self.name, description=self.about, deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT, ack_wait=ACK_WAIT, max_deliver=-1, max_ack_pending=MAX_ACK_PENDING,
            filter_subjects=list(self.only) or None,
        )  # fmt: skip


_DECIDED = (
    "alert", "switch", "review", "eval", "rollout", "case", "digest", "evidence", "hold", "erasure", "audit",
)  # fmt: skip
STREAMS = (
    Stream(
        subjects.RUNS, "What agents said of their runs", ("midwatch.run.>",), atomic=True,
        keep=lambda s: s.runs_max_age_days * _DAY, max_bytes=lambda s: s.runs_max_bytes,
    ),
    Stream(
        subjects.GOVERNANCE, "What the services and people decided",
        tuple(f"midwatch.{noun}.>" for noun in _DECIDED),
        keep=lambda s: s.governance_max_age_days * _DAY, max_msg_size=2 * LARGE,
    ),
    Stream(
        subjects.PRESENCE, "The registry of running instances: the last word of each", ("midwatch.presence.>",),
        keep=lambda _: PRESENCE_MAX_AGE, memory=True, last_only=True, max_msg_size=LARGE,
    ),
    Stream(
        subjects.DEAD, "Messages that a service could not process", ("midwatch.dead.>",), atomic=True,
        keep=lambda s: s.dead_max_age_days * _DAY,
    ),
)  # fmt: skip

BUCKETS = (
    Bucket(subjects.SWITCH, "The switch itself", history=64, republish=subjects.CONTROL),
    Bucket(subjects.AGENTS, "Scope cards", history=64, republish=f"{subjects.CONTROL}.card", max_msg_size=LARGE),
    Bucket(subjects.ROUTES, "Stage and traffic of each agent", history=64, republish=f"{subjects.CONTROL}.route",
           max_msg_size=SMALL),
    Bucket(subjects.CASES, "Who opened the case of a run", history=1, create_only=True, max_msg_size=SMALL,
           keep=lambda s: s.governance_max_age_days * _DAY),
)  # fmt: skip

# Services that keep something of runs: an erasure is done when each of them has confirmed it. See `runtime/erasure.py`.
ERASERS = (
    subjects.COST_WATCHDOG, subjects.KILL_SWITCH, subjects.PAGER, subjects.REVIEWER_SAMPLER, subjects.DRIFT,
    subjects.DIGEST,
)  # fmt: skip

CONSUMERS = (
    Consumer(subjects.LOGGER, subjects.RUNS, "Writes the run log"),
    Consumer(subjects.COST_WATCHDOG, subjects.RUNS, "Watches budgets and loops"),
    Consumer(subjects.REVIEWER_SAMPLER, subjects.RUNS, "Draws runs for people to read"),
    Consumer(
        subjects.REVIEWER_SAMPLER_GOVERNANCE,
        subjects.GOVERNANCE,
        "Hears what asks for a closer look",
        only=(subjects.alert("*", "raised"), subjects.switch("*", "halted")),
    ),
    Consumer(
        subjects.REVIEWER_SAMPLER_VERDICTS,
        subjects.GOVERNANCE,
        "Hears what reviewers say",
        only=(subjects.review("*", "judged"),),
    ),
    Consumer(subjects.KILL_SWITCH, subjects.RUNS, "Watches for events of halted runs"),
    Consumer(subjects.LOGGER_GOVERNANCE, subjects.GOVERNANCE, "Keeps alerts and decisions beside the run log"),
    Consumer(subjects.KILL_SWITCH_WRITES, subjects.key_stream(subjects.SWITCH), "Reports every write of the switch"),
    Consumer(subjects.KILL_SWITCH_CASES, subjects.key_stream(subjects.CASES), "Follows who sees to which case"),
    Consumer(
        subjects.KILL_SWITCH_GOVERNANCE,
        subjects.GOVERNANCE,
        "Hears of cases taken and closed, of alerts and drills",
        only=(
            subjects.case("*", "accepted"),
            subjects.case("*", "returned"),
            subjects.case("*", "closed"),
            subjects.alert("*", "raised"),
            subjects.switch("*", "drilled"),
        ),
    ),
    Consumer(
        subjects.PAGER,
        subjects.GOVERNANCE,
        "Brings alerts to the person on call, and digests to those who read them",
        only=(
            *(subjects.alert("*", event) for event in ("raised", "acknowledged", "resolved")),
            subjects.digest("*", "written"),
            subjects.review("*", "summed"),
        ),
    ),
    *(
        Consumer(
            subjects.erasure_consumer(service), subjects.GOVERNANCE, "Hears which runs it is to erase",
            only=(subjects.erasure("resolved"),),
        )
        for service in ERASERS
    ),
    Consumer(
        subjects.erasure_consumer(subjects.LOGGER), subjects.GOVERNANCE, "Sees erasures through",
        only=(subjects.erasure("requested"), subjects.erasure("erased")),
    ),
)  # fmt: skip


async def apply(js: JetStreamContext, settings: Settings, *, force: bool = False) -> list[Change]:
    """Makes the server's streams, buckets and consumers as declared; what is already so stays untouched.

    A change that would lose stored messages is refused unless `force`. Streams that are not ours are left alone. The
    `fleet` key is written as running if the bucket was never written. Raises NoJetStream.
    """
    try:
        await js.account_info()
        return [
            *[await _apply_stream(js, "stream", s.name, s.config(settings), force) for s in STREAMS],
            *[await _apply_stream(js, "bucket", b.name, b.config(settings), force) for b in BUCKETS],
            *[await _apply_consumer(js, consumer, force) for consumer in CONSUMERS],
            await _arm_fleet(js),
        ]
    except (NoRespondersError, ServiceUnavailableError):
        raise NoJetStream from None


async def restore(js: JetStreamContext, settings: Settings) -> None:
    """Makes the streams in memory anew where a restart of the server took them; those that are there stay."""
    for stream in STREAMS:
        if stream.memory:
            try:
                await js.stream_info(stream.name)
            except NotFoundError:
                await js.add_stream(stream.config(settings))


async def missing(js: JetStreamContext) -> list[str]:
    """Names of declared streams and consumers that the server does not have. Raises NoJetStream."""
    absent = []
    try:
        for name in (*(s.name for s in STREAMS), *(b.stream for b in BUCKETS)):
            try:
                await js.stream_info(name)
            except NotFoundError:
                absent.append(name)
        for consumer in CONSUMERS:
            try:
                await js.consumer_info(consumer.stream, consumer.name)
            except NotFoundError:
                absent.append(f"{consumer.stream}/{consumer.name}")
    except (NoRespondersError, ServiceUnavailableError):
        raise NoJetStream from None
    return absent


async def _apply_stream(
    js: JetStreamContext, kind: Literal["stream", "bucket"], name: str, wanted: StreamConfig, force: bool
) -> Change:
    stream = wanted.name or ""
    try:
        try:
            found = await js.stream_info(stream)
        except NotFoundError:
            await js.add_stream(wanted)
            return Change(kind, name, "created")
        differs = _differences(found.config, wanted)
        if not differs:
            return Change(kind, name, "unchanged")
        detail = ", ".join(f"{field}: {_text(old)} → {_text(new)}" for field, old, new in differs)
        losses = list(_losses(found, differs))
        if losses and not force:
            return Change(kind, name, "refused", f"{detail}. {'; '.join(losses)}. Use --force if that is meant")
        if any(field in ("storage", "retention") for field, _, _ in differs):
            await js.delete_stream(stream)
            await js.add_stream(wanted)
        else:
            await js.update_stream(found.config.evolve(**{field: new for field, _, new in differs}))
        return Change(kind, name, "updated", detail)
    except APIError as error:
        return _refused_by_server(kind, name, error)


async def _apply_consumer(js: JetStreamContext, consumer: Consumer, force: bool) -> Change:
    name, wanted = f"{consumer.stream}/{consumer.name}", consumer.config()
    try:
        try:
            found: ConsumerInfo = await js.consumer_info(consumer.stream, consumer.name)
        except NotFoundError:
            await js.add_consumer(consumer.stream, wanted)
            return Change("consumer", name, "created")
        differs = _differences(found.config, wanted)
        if not differs:
            return Change("consumer", name, "unchanged")
        detail = ", ".join(f"{field}: {_text(old)} → {_text(new)}" for field, old, new in differs)
        if any(field in ("deliver_policy", "ack_policy") for field, _, _ in differs):
            if not force:
                why = "It must be made anew and would read its stream from the start. Use --force if that is meant"
                return Change("consumer", name, "refused", f"{detail}. {why}")
            await js.delete_consumer(consumer.stream, consumer.name)
            await js.add_consumer(consumer.stream, wanted)
        else:
            await js.add_consumer(consumer.stream, found.config.evolve(**{field: new for field, _, new in differs}))
        return Change("consumer", name, "updated", detail)
    except APIError as error:
        return _refused_by_server("consumer", name, error)


async def _arm_fleet(js: JetStreamContext) -> Change:
    # An absent or deleted `fleet` is not running. Only a bucket in which nothing ever was may be armed unasked: where
    # there were writes and no `fleet` is left, someone may have halted it.
    stream = subjects.key_stream(subjects.SWITCH)
    subject = subjects.key_subject(subjects.SWITCH, subjects.FLEET_KEY)
    try:
        last = await js.get_last_msg(stream, subject)
        operation = (last.headers or {}).get("KV-Operation")
        if not operation:
            return Change("key", subjects.FLEET_KEY, "unchanged")
    except NotFoundError:
        try:
            if (await js.stream_info(stream)).state.last_seq == 0:
                record = control.SwitchRecord(state="running", by="topology apply", at=utc_now())
                unwritten = {"Nats-Expected-Last-Subject-Sequence": "0"}
                await js.publish(subject, control.encode(record), headers=unwritten)
                return Change("key", subjects.FLEET_KEY, "created", "running")
        except APIError as error:
            if error.err_code != _WRONG_LAST_SEQUENCE:
                return _refused_by_server("key", subjects.FLEET_KEY, error)
            return Change("key", subjects.FLEET_KEY, "unchanged")
    mend = "no agent runs until `midwatch resume --fleet`"
    return Change("key", subjects.FLEET_KEY, "refused", f"the key was removed from a bucket in use: {mend}")


Difference = tuple[str, Any, Any]  # field, value found, value wanted


def _differences(found: Any, wanted: Any) -> list[Difference]:
    # The server leaves out what is false or unset.
    pairs = ((field, getattr(found, field), value) for field, value in vars(wanted).items() if value is not None)
    differs = [(field, old, new) for field, old, new in pairs if old != new and (old or new)]
    if isinstance(wanted, StreamConfig) and found.republish and not wanted.republish:
        differs.append(("republish", found.republish, None))
    return differs


def _losses(found: StreamInfo, differs: Sequence[Difference]) -> Iterator[str]:
    stored = found.state.messages
    for field, old, new in differs:
        if field == "subjects" and (gone := sorted(set(old or ()) - set(new))):
            yield f"nothing would keep {', '.join(gone)} any more"
        elif field in ("storage", "retention") and stored:
            yield f"the stream must be made anew, and its {stored} messages would be lost"
        elif field in ("max_age", "max_msgs_per_subject") and stored and _is_less(new, old):
            yield f"stored messages beyond the new {field} would be lost"
        elif field == "max_bytes" and _is_less(new, old) and found.state.bytes > new:
            yield f"{found.state.bytes - new} of {found.state.bytes} stored bytes would be lost"


def _is_less(new: float, old: float | None) -> bool:
    # 0 and -1 stand for "no limit".
    return new > 0 and (not old or old < 0 or new < old)


def _text(value: Any) -> str:
    if isinstance(value, RePublish):
        return f"{value.src} to {value.dest}"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(getattr(value, "value", value))


def _refused_by_server(kind: Literal["stream", "bucket", "consumer", "key"], name: str, error: APIError) -> Change:
    return Change(kind, name, "refused", f"the server says: {error.description or error} ({error.err_code})")
