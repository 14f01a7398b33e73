"""The proof of an erasure: who asked, when and why, what was erased where, and what is left to time or to a person.
Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from ..decide import text_of
from .log import Leaf
from .store import Part, Places, Work

VERSION = 1


def build(
    work: Work, runs: Sequence[tuple[str, str]], leaves: Sequence[Leaf], alerts: Sequence[str],
    confirmed: Mapping[str, dict[str, int]], outstanding: Sequence[str], *, at: datetime, backup_days: float,
) -> dict[str, Any]:  # fmt: skip
    """Nothing in it names the customer: `reference` is the HMAC-SHA-256 of the reference under `salt`."""
    return {
        "version": VERSION,
        "erasure": work.id,
        "asked_at": work.asked_at,
        "done_at": text_of(at),
        "by": work.by,
        "reason": work.reason,
        "reference": work.reference,
        "salt": work.salt,
        "runs": [list(run) for run in runs],
        "events": [[leaf.agent, leaf.id, leaf.run_id, leaf.place, leaf.leaf] for leaf in leaves],
        "alerts": list(alerts),
        "places": work.places,
        "confirmed": dict(confirmed),
        "outstanding": list(outstanding),
        "backups_until": text_of(at + timedelta(days=backup_days)),
    }


def digest(proof: Mapping[str, Any]) -> str:
    """SHA-256 of the proof as the chains hold it."""
    return hashlib.sha256(msgspec.json.encode(proof, order="deterministic")).hexdigest()


def confirmations(parts: Sequence[Part]) -> Places:
    """What each service has erased, over all parts."""
    found: Places = {}
    for part in parts:
        for service, counts in part.confirmed.items():
            known = found.setdefault(service, {})
            for name, count in counts.items():
                known[name] = known.get(name, 0) + count
    return found


def waits_for(parts: Sequence[Part], services: Sequence[str]) -> list[str]:
    """The services that have not confirmed all parts yet."""
    return [service for service in services if any(service not in part.confirmed for part in parts)]
