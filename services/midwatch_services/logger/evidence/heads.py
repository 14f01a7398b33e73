"""The checkpoints of a log: their signatures, whether they follow one another, what they say of the chains. Pure."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from midwatch.contracts.governance import EvidenceCheckpointed as Checkpoint

from . import checkpoints
from .checkpoints import Verifier
from .findings import Finding, Report


class Named(NamedTuple):
    """A head that a checkpoint names."""

    number: int
    head: str
    checkpoint: Checkpoint


Heads = dict[str, Named]  # the newest of each agent


def check(
    found: Iterable[Checkpoint | None], keys: Verifier | None, origin: str, heads: Heads, report: Report
) -> Checkpoint | None:
    """Reports what is wrong with the checkpoints of one origin, in their order, and puts the heads that may be believed
    into `heads`. Returns the last one; without `keys` no signature is looked at."""
    before: Checkpoint | None = None
    unknown: set[str] = set()
    for one in found:
        if one is None:
            report.add(Finding("checkpoint", f"a row of the checkpoints in {origin} cannot be read"))
            continue
        report.newest_checkpoint = max(report.newest_checkpoint, one.at)
        if what := _wrong(one, keys, unknown):
            report.add(Finding("checkpoint", f"checkpoint {one.number} in {origin} {what}", block=one.number))
        elif not (keys is not None and one.key in unknown):
            for agent, (number, head) in one.heads.items():
                if agent not in heads or number > heads[agent].number:
                    heads[agent] = Named(number, head, one)
        if what := _follows(one, before):
            report.add(Finding("checkpoint", f"checkpoint {one.number} in {origin} {what}", block=one.number))
        before = one
    return before


def gone(outside: Iterable[Checkpoint], inside: Callable[[int], Checkpoint | None], origin: str) -> Iterator[Finding]:
    """What was signed and kept outside, and is in the log no more, or is another there."""
    for one in outside:
        ours = inside(one.number)
        if ours is None:
            text = f"checkpoint {one.number}, signed {one.at}, is in {origin} and not in the log: the log was cut"
            yield Finding("truncated", text, block=one.number)
        elif checkpoints.digest(ours) != checkpoints.digest(one):
            text = f"checkpoint {one.number}, signed {one.at}, is another in {origin} than in the log"
            yield Finding("checkpoint", text, block=one.number)


def against(
    agent: str, named: Named, last: int, head_at: Callable[[str, int], bytes | None], all_: Iterable[Checkpoint]
) -> Iterator[Finding]:
    """What a chain that ends at block `last` has against the newest head that was signed of it."""
    signed = (
        f"checkpoint {named.checkpoint.number}, signed {named.checkpoint.at}, names block {named.number} of {agent}"
    )
    if last < named.number:
        lost = named.number - last
        blocks = "its last block is" if lost == 1 else f"its last {lost} blocks are"
        text = f"{signed}, and its chain ends at block {last}: {blocks} gone"
        yield Finding("truncated", text, agent=agent, block=last)
        return
    ours = head_at(agent, named.number)
    if ours is not None and ours.hex() == named.head:
        return
    good = 0
    for one in all_:
        number, head = one.heads.get(agent, (0, ""))
        if number > good and (mine := head_at(agent, number)) is not None and mine.hex() == head:
            good = number
    since = f"after block {good}, which still agrees with one" if good else "and no earlier one agrees either"
    text = f"{signed} with another head: the chain was written anew, {since}"
    yield Finding("chain", text, agent=agent, block=named.number)


def _wrong(one: Checkpoint, keys: Verifier | None, unknown: set[str]) -> str:
    if keys is None:
        return ""
    if one.key not in keys:
        if one.key in unknown:
            return ""
        unknown.add(one.key)
        return f"is signed with the key {one.key}, which is none of the given ones: it is forged, or --key lacks that"
    return "" if checkpoints.is_signed(one, keys) else f"is not signed by the key {one.key}: it was altered or forged"


def _follows(one: Checkpoint, before: Checkpoint | None) -> str:
    if before is None:
        return "" if one.number == 1 else "is the first there: those before it are missing"
    if one.number == before.number and checkpoints.digest(one) == checkpoints.digest(before):
        return ""  # a sink may be given one twice
    if one.number != before.number + 1:
        return f"follows checkpoint {before.number}"
    return "" if one.previous == checkpoints.digest(before) else f"names another checkpoint {before.number} before it"
