"""What a change is called, in a plain sentence with its figures. Pure."""

from decimal import Decimal

from midwatch.contracts.money import dollars

from .text import language_name

_NAME_LIMIT = 40  # characters
_RESOLVED = {
    "resolved": "Runs that were resolved", "handed_off": "Runs that were handed off", "halted": "Runs that were halted",
    "fell_back": "Runs that fell back", "failed": "Runs that failed", "abandoned": "Runs that were abandoned",
}  # fmt: skip
_KNOWN = {"cost": "cost", "tokens": "number of tokens", "seconds": "duration"}
# Of each figure: its subject and verb, what more of it is and less of it, and what it is counted in.
_FIGURES = {
    "cost": ("Runs cost", "more", "less", "as much", ""),
    "tokens": ("Runs use", "more tokens", "fewer tokens", "as many tokens", ""),
    "written": ("The model writes", "more tokens a run", "fewer tokens a run", "as many tokens a run", ""),
    "call_seconds": ("The model takes", "longer to answer", "less time to answer", "as long to answer", ""),
    "answer": ("Each answer of the agent has", "more characters", "fewer characters", "as many characters", ""),
    "seconds": ("Runs take", "longer", "less time", "as long", ""),
    "messages": ("Conversations have", "more messages", "fewer messages", "as many messages", ""),
    "calls": ("Runs make", "more tool calls", "fewer tool calls", "as many tool calls", ""),
    "characters": ("The agent writes", "more", "less", "as much", " characters"),
}  # fmt: skip
_PLACES = {0.5: "in the middle", 0.9: "in the highest tenth", 0.1: "in the lowest tenth"}


def name(text: str) -> str:
    """What an agent calls something, in one line, without what could steer a terminal or a pager, and not too long."""
    text = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * _NAME_LIMIT]).split())
    return text if len(text) <= _NAME_LIMIT else f"{text[: _NAME_LIMIT - 1]}…"


def percent(share: float) -> str:
    """A share for people; one decimal where whole numbers would say too little."""
    hundredths = 100 * share
    if 0 < hundredths < 2 or 98 < hundredths < 100:
        return f"{hundredths:.1f} %"
    return f"{hundredths:.0f} %"


def trait(cause: str, what: str, now: float, before: float) -> str:
    """How a share has changed."""
    rose, shares = now > before, f"{percent(now)} of runs, before {percent(before)}"
    if cause == "hand_offs":
        return f"Hand-offs {'rose' if rose else 'fell'} from {percent(before)} to {percent(now)} of runs"
    if cause == "known":
        more = "more" if rose else "fewer"
        return f"The {_KNOWN[what]} is known of {more} runs: {percent(now)}, before {percent(before)}"
    if cause == "words":
        return f"Customers write about '{name(what)}' {'more' if rose else 'less'} often: {shares}"
    if not before:
        return f"A tool is new: {name(what)}, in {percent(now)} of runs"
    if not now:
        return f"A tool is no longer used: {name(what)}, before in {percent(before)} of runs"
    return f"The tool {name(what)} is used {'more' if rose else 'less'} often: in {shares}"


def kind(cause: str, what: str, now: float, before: float) -> str:
    """How the share of one name of several has changed."""
    rose = now > before
    if cause == "language":
        often = "more" if rose else "less"
        return (
            f"Customers write in {language_name(what)} {often} often: {percent(now)} of runs, before {percent(before)}"
        )
    runs = _RESOLVED.get(what, "Runs that ended otherwise")
    return f"{runs} {'rose' if rose else 'fell'} from {percent(before)} to {percent(now)}"


def figure(what: str, place: float, now: float, before: float) -> str:
    """How a figure has changed at that place of the runs in their order."""
    verb, more, less, much, unit = _FIGURES[what]
    if not before or not now:
        change = more if now > before else less
    elif now >= 2 * before:
        change = f"{now / before:.1f} times {much}"
    else:
        change = f"{percent(abs(now / before - 1))} {more if now > before else less}"
    return f"{verb} {change}: {amount(what, now)}{unit} {_PLACES[place]}, before {amount(what, before)}"


def amount(what: str, value: float) -> str:
    """A figure for people."""
    if what == "cost":
        return dollars(Decimal(repr(value)))
    if what in ("seconds", "call_seconds"):
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def too_few(recent: int, baseline: int, least: int) -> str:
    """Why nothing can be said."""
    if recent < least:
        return f"too few runs to say: {recent} of {least}"
    return f"too few runs before to say: {baseline} of {least}"
