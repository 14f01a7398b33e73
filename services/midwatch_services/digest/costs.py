"""What the day cost, and how sure that is. Pure."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

from . import words
from .facts import Facts, Run, Sentence

_BASES = {
    "reported": "was reported with the answers", "priced": "was worked out from price lists",
    "estimated": "was guessed from the length of the texts",
}  # fmt: skip
_BIGGEST = 3


def tell(facts: Facts) -> Iterator[Sentence]:
    """The sum, what it rests on, its largest parts, and its share of the day's budget."""
    runs = facts.runs
    known = [run for run in runs if run.cost_usd]
    blank = [run for run in runs if _is_blank(run)]
    total = sum((run.cost_usd or Decimal(0) for run in known), Decimal(0))
    if known:
        least = "at least " if any(run.cost_basis == "unpriced" for run in known) or blank else ""
        yield words.about_runs(f"The day cost {least}{words.money(total)}.", known)
        yield from _bases(known, whole=not blank)
    elif blank:
        yield words.about_runs("What the day cost is not known.", blank)
    else:
        yield words.about_runs("No run cost anything.", runs)
    yield from _unknown(runs, blank if known else ())
    if len(known) > _BIGGEST:
        yield _biggest(known)
    if facts.budget_usd and known:
        yield _budget(facts, total, known, unsure=bool(blank) or any(run.cost_basis == "unpriced" for run in known))


def _is_blank(run: Run) -> bool:
    """Whether nothing at all is known of what it cost: no call of a model is on record, or none has a price."""
    return run.cost_usd is None or (not run.cost_usd and run.cost_basis == "unpriced")


def _bases(known: Sequence[Run], *, whole: bool) -> Iterator[Sentence]:
    """How much of the sum is known in which way, where there is more than one or the one is no report."""
    parts = {basis: [run for run in known if run.cost_basis == basis] for basis in _BASES}
    parts = {basis: some for basis, some in parts.items() if some}
    mixed = [run for run in known if run.cost_basis == "unpriced"]
    if list(parts) == ["reported"] and not mixed:
        what = "All of it" if whole else "All that is known of it"
        yield words.about_runs(f"{what} was reported with the answers.", known)
        return
    for basis, some in parts.items():
        amount = sum((run.cost_usd or Decimal(0) for run in some), Decimal(0))
        yield words.about_runs(f"Of this, {words.money(amount)} {_BASES[basis]}.", some)


def _unknown(runs: Sequence[Run], blank: Sequence[Run]) -> Iterator[Sentence]:
    part = [run for run in runs if run.cost_basis == "unpriced" and run.cost_usd]
    if part:
        calls = sum(run.unpriced_calls for run in part)
        what = f"{words.many(calls, 'call')} of a model with no known price" if calls else "calls with no known price"
        text = f"In {words.many(len(part), 'run')} there {words.was(calls or 2)} {what}, so the cost is a part only."
        yield words.about_runs(text, part)
    if blank:
        text = f"What {words.many(len(blank), 'run')} cost is not known at all."
        yield words.about_runs(text, blank)


def _biggest(known: Sequence[Run]) -> Sentence:
    top = sorted(known, key=lambda run: (-(run.cost_usd or 0), run.key))[:_BIGGEST]
    amounts = words.listed([words.money(run.cost_usd or Decimal(0)) for run in top])
    return words.about_runs(f"The three dearest runs cost {amounts}.", top)


def _budget(facts: Facts, total: Decimal, known: Sequence[Run], *, unsure: bool) -> Sentence:
    assert facts.budget_usd
    shown = words.percent(total / facts.budget_usd)
    least = "at least " if unsure and not shown.startswith("less") else ""
    whose = "the shop" if facts.agent is None else words.name(facts.agent)
    text = f"That is {least}{shown} of the {words.money(facts.budget_usd)} that {whose} may spend in a day."
    return words.about_runs(text, known)
