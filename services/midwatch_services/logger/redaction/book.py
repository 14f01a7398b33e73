"""Each agent's rules in force, and what the logger saves by them. Safe where it cannot be exact: what a rule cannot be
made of is redacted by default, what cannot be looked through is not stored at all."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog

from midwatch.contracts import codec
from midwatch.contracts.codec import RunEvent
from midwatch.contracts.control import REDACTED, Card, RedactRule
from midwatch.contracts.envelope import Envelope
from midwatch.contracts.governance import AlertAcknowledged, AlertRaised, AlertResolved
from midwatch.runtime.delivery import Received

from . import keys
from .redactor import KEPT, WITHHELD, Redactor
from .rules import Rules, compiled

log = structlog.get_logger("midwatch.redaction")
_TEXTS = ("input", "text", "reason", "action")  # that an event cannot be without


class _Known(NamedTuple):
    redact: Sequence[RedactRule]
    sealing: keys.Keys | None
    redactor: Redactor


class RedactionBook:
    """Redacts by the card of each agent as it is now. `key_file`: where the key of reversible rules is, if anywhere."""

    def __init__(
        self, card: Callable[[str], Card] | None = None, key_file: Path | None = None
    ) -> None:  # fmt: skip
        self._card, self._key_file = card, key_file
        self._known: dict[str, _Known] = {}
        self._keys: tuple[Any, keys.Keys | None] = (None, None)
        self._said: set[tuple[str, object]] = set()

    def of(self, agent: str) -> Redactor:
        """The agent's rules, as its card says them now."""
        redact = self._card(agent).log.redact if self._card else REDACTED
        sealing = self._sealing() if any(rule.reversible for rule in redact) else None
        known = self._known.get(agent)
        if known is None or known.redact != redact or known.sealing is not sealing:
            rules = self._rules(agent, tuple(redact))
            if rules.reversible and sealing is None:
                self._warn(agent, "redaction_without_key", "make a key with `midwatch redaction new-key`", redact)
            known = self._known[agent] = _Known(redact, sealing, Redactor(rules, agent, sealing))
        return known.redactor

    def redact_many(self, agent: str, bodies: Sequence[bytes]) -> list[bytes]:
        """Bodies of an agent's events as they are stored."""
        redactor = self.of(agent)
        return [redactor.body(body) for body in bodies]

    def events(self, batch: Sequence[Received]) -> Sequence[Received]:
        """The batch as it is stored: bodies redacted, and each event read from its redacted body."""
        redactors = {agent: self.of(agent) for agent in {received.event.agent for received in batch}}
        return [self._event(redactors[received.event.agent], received) for received in batch]

    def alert(self, event: Envelope[Any], agent: str | None) -> Envelope[Any]:
        """An alert event with its words redacted. `agent`: whose alert it is, where that is known."""
        data = event.data
        text = self.of(agent or "").text
        if isinstance(data, AlertRaised):
            data = msgspec.structs.replace(data, title=text(data.title))
        elif isinstance(data, AlertResolved):
            data = msgspec.structs.replace(data, reason=text(data.reason))
        elif isinstance(data, AlertAcknowledged):
            data = msgspec.structs.replace(data, note=text(data.note))
        return msgspec.structs.replace(event, data=data)

    def _event(self, redactor: Redactor, received: Received) -> Received:
        try:
            body = redactor.body(received.body)
            if body is received.body:
                return received
            return replace(received, body=body, event=codec.decode_run(received.subject, body))
        except Exception as error:
            # Never raw because of a mistake of ours, and never lost for it.
            self._warn(received.event.agent, "redaction_failed", "the event is kept without its texts", repr(error))
            body = without_texts(received.event)
            return replace(received, body=body, event=codec.decode_run(received.subject, body))

    def _rules(self, agent: str, redact: tuple[RedactRule, ...]) -> Rules:
        try:
            return compiled(redact)
        except ValueError as error:
            mend = "`midwatch apply` its card again; until then every known kind is redacted as well"
            self._warn(agent, "redaction_rules_unusable", mend, str(error))
        good = tuple(rule for rule in redact if _is_usable(rule) and rule not in REDACTED)
        return compiled((*good, *(rule for rule in REDACTED if rule.name not in {one.name for one in good})))

    def _sealing(self) -> keys.Keys | None:
        if self._key_file is None:
            return None
        try:
            found = self._key_file.stat()
        except OSError:
            return None
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp != self._keys[0]:
            try:
                self._keys = (stamp, keys.read(self._key_file))
            except keys.BadKey as error:
                self._keys = (stamp, None)
                self._warn("", "redaction_key_unusable", "reversible rules are applied for good", str(error))
        return self._keys[1]

    def _warn(self, agent: str, what: str, mend: str, why: object) -> None:
        # Once for each cause, not once for each event.
        if (agent, why) not in self._said and len(self._said) < 10_000:
            self._said.add((agent, why))
            log.error(what, agent=agent or None, mend=mend, why=why if isinstance(why, str) else None)


BY_DEFAULT = RedactionBook()


def without_texts(event: RunEvent) -> bytes:
    """The body of an event with nothing of what was said in it."""
    data = event.data
    kept = {name: getattr(data, name) for name in data.__struct_fields__ if name in KEPT or name == "by"}
    said = {name: WITHHELD for name in _TEXTS if name in data.__struct_fields__}
    bare = type(data)(**{**kept, **said})
    return codec.encode(
        codec.envelope("run", event.event, bare, source=event.source, id=event.id, time=event.time, subject=data.run_id)
    )


def _is_usable(rule: RedactRule) -> bool:
    try:
        compiled((rule,))
    except ValueError:
        return False
    return True
