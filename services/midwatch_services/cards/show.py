"""A card for people: every default filled in, and the text of a new one."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from midwatch.contracts.control import Card
from midwatch.runtime.document import parse

from .meaning import as_words

_INDENT, _COLUMN = 2, 44

STARTER = """\
# The scope card of {agent}, on one page. `midwatch card check {path}` reads it, `midwatch apply {path}` puts it
# in force: running agents and services follow within a second.

agent: {agent}
owner: {owner}   # who answers for it
purpose: Say in a sentence what it is for.

# purpose, can, cannot and escalate_when hold at most 200 words together. If that is too few, the agent is too ambitious
# for its first version.
can:
  - Say what it may do, one line each
cannot:
  - Say what it must never do
escalate_when:
  - Say when a person must take over

# What each tool does to the world: `read`, `write` or `other`. One that is not named here counts as a write.
tools: {{}}
#  lookup_order: read
#  issue_refund: write

# The rest may be left out; these are the defaults (`midwatch card show {agent}` prints them too).
# fallback: human                                # or agent:<name>: who takes over when it is halted
# budget:                                        # at 50 and 80 % an alert, at 100 % what at_limit says
#   run: $1
#   ticket: $2                                   # all runs of one ticket; also `hour` and `day`, of the agent, in UTC
#   at_limit: {{run: halt_run, ticket: halt_run, hour: fall_back, day: fall_back}}   # or alert, halt_agent
#   run_tokens: 500000                           # of a run of which a call has no known price
#   run_steps: 100                               # its model calls
#   reserve: false                               # set each call's ceiling aside before it is made
#   unreachable: fall_back                       # or go_on: when nobody answers an agent that reserves
# loops:
#   alert_at: 3                                  # tool calls in a row that bring nothing new
#   halt_at: 5
#   writes: {{halt_at: 4, mode: act}}              # the same write, successful each time
#   cycle: {{halt_at: 3, mode: observe}}           # rounds of the same few calls
#   text: {{halt_at: 3, mode: observe}}            # the agent says the same again
#   hand_offs: {{halt_at: 6, mode: observe}}       # of one ticket
#   velocity: {{times: 5, mode: observe}}          # the agent's own usual cost or tokens a minute
#   stalled: 30m                                 # without an event: reported
# review:
#   rate: 20%                                    # share of runs drawn for people to read, for the first `days`
#   days: 30
#   taper: [10%, 5%, 2%]                         # then these, one a week, while the failure rate stays low
#   fail_limit: 3%                               # its upper 95 % bound has to stay under this
#   minutes_a_day: 60                            # what reviewers have for this agent; 0 for no limit
#   second_review: 20%                           # share that another person reads as well, blind
#   reasons: [promised_too_much, wrong_fact, wrong_write, should_have_handed_off, tone, other]
#   claim: 30m                                   # for how long one reviewer holds a run
#   age: 3 days                                  # a run that waits longer raises an alert
#   besides:                                     # runs that are read though they were not drawn
#     alerts: true                               # also `cost`, such as $0.50
#     hand_offs: true
#     tools: []
#     complaints: [complain, complaint, lawyer, manager, supervisor, unacceptable, ridiculous]
# switch:
#   lease: 5s                                    # how long it may act without having read the switch
#   lost_control: fall_back                      # or carry_on: what it does after that
#   drill: monthly                               # or weekly, quarterly, never: a rehearsal of the halt
#   drill_hours: 02:00-05:00                     # when it may begin, UTC
#   trips:                                       # what halts the agent without a person (act), or is said (observe)
#     mode: observe
#     alerts: []                                 # rules whose page does it, for instance [budget_run]
#     halted_runs: 3                             # halted one by one within an hour
#     failed_runs: 50%                           # of those that finished within an hour
# log:
#   keep: 400 days                               # at least 183: six months
#   redact: [email, phone, card, iban]           # replaced before a run is stored; also {{name, pattern}} and {{field}}
#   digest_words: 2000                           # the most that its daily digest may say; 200 are read in a minute
# alerts: {{page: "", ticket: ""}}                 # routes or contacts of pager.yaml; empty leaves it to that file
"""


def starter(agent: str, owner: str, path: str) -> str:
    """A commented card to begin with, which is accepted as it is."""
    return STARTER.format(agent=scalar(agent), owner=scalar(owner), path=path)


def defaults(card: Card) -> list[str]:
    """Paths at which a card says what it would have said by default."""
    bare = dict(_leaves(as_words(Card(agent=card.agent, owner="", purpose="", can=[]))))
    required = {"agent", "owner", "purpose", "can"}
    return [path for path, value in _leaves(as_words(card)) if path not in required and bare.get(path) == value]


def unstated(card: Card, stated: Iterable[str]) -> list[str]:
    """Paths that the card's file left out."""
    written = set(stated)
    return [path for path, _ in _leaves(as_words(card)) if path not in written]


def lines(card: Card, by_default: Iterable[str]) -> Iterator[str]:
    """The card as YAML, with a remark at every default."""
    yield from _lines(as_words(card), set(by_default), "", "")


def _lines(said: dict[str, Any], marked: set[str], prefix: str, indent: str) -> Iterator[str]:
    for name, value in said.items():
        key = f"{indent}{scalar(name)}"
        if isinstance(value, list) and value:
            yield _remarked(f"{key}:", f"{prefix}{name}" in marked)
            yield from (f"{indent}{' ' * _INDENT}- {_item(item)}" for item in value)
        elif isinstance(value, dict) and value:
            yield f"{key}:"
            yield from _lines(value, marked, f"{prefix}{name}.", indent + " " * _INDENT)
        else:
            text = f"{key}: {value if isinstance(value, list | dict) else scalar(value)}"
            yield _remarked(text, f"{prefix}{name}" in marked)


def _item(value: Any) -> str:
    if not isinstance(value, dict):
        return scalar(value)
    return f"{{{', '.join(f'{name}: {_flow(part)}' for name, part in value.items())}}}"


def _flow(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return scalar(value) if re.match(r"^[\w -]+$", value) else json.dumps(value, ensure_ascii=False)


def _remarked(text: str, is_default: bool) -> str:
    return f"{text:<{_COLUMN}}# default" if is_default else text


def _leaves(said: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in said.items():
        if isinstance(value, dict) and name != "tools":
            found += _leaves(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, value))
    return found


def scalar(value: Any) -> str:
    """A value as YAML on one line, quoted where it must be, without what could steer a terminal."""
    text = "".join(char if char.isprintable() else " " for char in str(value)).strip()
    if not isinstance(value, str) or parse(f"x: {text}".encode()).data == {"x": text}:
        return text
    return json.dumps(text, ensure_ascii=False)
