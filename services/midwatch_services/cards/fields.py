"""What stands at the keys of a card: how each kind of value is read, and what an editor knows of it."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, WithJsonSchema

from midwatch.contracts.money import WRITTEN, read_money
from midwatch.contracts.subjects import AGENT_PATTERN, is_agent_name

from . import values
from .base import text as _text
from .base import text_schema as _text_schema

LEASE_LEAST = 2.0  # seconds; the switch is read once a second
_TOOL = r"^[^\s]{1,128}$"
_WORD_MOST = 64  # characters of a word that customers complain with
_HOURS = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"
_RULE = r"^[a-z][a-z0-9_]{0,62}$"
_CONTACT = r"^([a-z0-9][a-z0-9_-]{0,62})?$"
_FALLBACK = r"^(human|agent:[a-z0-9][a-z0-9_-]{0,62})$"


def _sentence(value: Any) -> str:
    if isinstance(value, dict) and value.keys() & {"say", "when"}:
        raise ValueError(
            "holds `{say, when}`, which is not enforced by this release, so it is not accepted: "
            "write the sentence alone"
        )
    return _text(value)


def _agent(value: str) -> str:
    if not is_agent_name(value):
        raise ValueError("must be lower-case letters, digits, `-` and `_`, at most 63, no dots")
    return value


def _tool(value: str) -> str:
    if not re.match(_TOOL, value) or not value.isprintable():
        raise ValueError("is no tool's name: at most 128 characters, no spaces")
    return value


def _fallback(value: str) -> str:
    if not re.match(_FALLBACK, value):
        raise ValueError("must be `human` or `agent:<name>`")
    return value


def _lease(value: float) -> float:
    if value < LEASE_LEAST:
        raise ValueError(f"must be at least {LEASE_LEAST:g}s: the switch is read once a second")
    return value


def _hours(value: str) -> str:
    if not re.match(_HOURS, value):
        raise ValueError("must be two times of day in UTC, such as 02:00-05:00")
    return value


def _rule(value: str) -> str:
    if not re.match(_RULE, value):
        raise ValueError("is no rule of an alert, such as `budget_run`")
    return value


def _contact(value: str) -> str:
    if not re.match(_CONTACT, value):
        raise ValueError("must be the name of a route or contact in pager.yaml, such as on-call")
    return value


def _period(value: float) -> float:
    if value <= 0:
        raise ValueError("must be above 0s")
    return value


def _limit(value: float) -> float:
    if not 0 < value < 1:
        raise ValueError("must be above 0% and below 100%")
    return value


def _reason(value: str) -> str:
    if not re.match(_RULE, value):
        raise ValueError("must be a short name in lower-case letters, digits and `_`, such as wrong_fact")
    return value


def with_other(value: list[str]) -> list[str]:
    """What fails may be called. Raises ValueError."""
    if "other" not in value:
        raise ValueError("must hold `other`: there is always a fail that no name fits")
    if twice := next((one for one in value if value.count(one) > 1), None):
        raise ValueError(f"names {twice} twice")
    return value


def _word(value: str) -> str:
    if len(value) > _WORD_MOST:
        raise ValueError(f"has {len(value)} characters: at most {_WORD_MOST}")
    return value


Text = Annotated[str, BeforeValidator(_text), _text_schema("Plain text")]
Sentence = Annotated[str, BeforeValidator(_sentence), _text_schema("One plain sentence")]
AgentName = Annotated[
    str, BeforeValidator(_text), AfterValidator(_agent), _text_schema("The agent's name", pattern=AGENT_PATTERN)
]
ToolName = Annotated[str, BeforeValidator(_text), AfterValidator(_tool), _text_schema("A tool's name", pattern=_TOOL)]
Fallback = Annotated[
    str,
    BeforeValidator(_text),
    AfterValidator(_fallback),
    _text_schema("Who takes over: `human` or `agent:<name>`", pattern=_FALLBACK),
]
Money = Annotated[
    str,
    BeforeValidator(read_money),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": WRITTEN}],
         "description": "US dollars, such as $1 or 0.50"}
    ),
]  # fmt: skip
Share = Annotated[
    float,
    BeforeValidator(values.share),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0, "exclusiveMaximum": 1},
                   {"type": "string", "pattern": values.SHARE}],
         "description": "A share, such as 20% or 0.2"}
    ),
]  # fmt: skip
Lease = Annotated[
    float,
    BeforeValidator(values.seconds),
    AfterValidator(_lease),
    WithJsonSchema({"type": "string", "pattern": values.TIME, "description": "A time of 2s or more, such as 5s or 1m"}),
]
Hours = Annotated[
    str,
    BeforeValidator(_text),
    AfterValidator(_hours),
    _text_schema("Two times of day in UTC, such as 02:00-05:00", pattern=_HOURS),
]
Rule = Annotated[
    str,
    BeforeValidator(_text),
    AfterValidator(_rule),
    _text_schema("The rule of an alert, such as budget_run", pattern=_RULE),
]
Contact = Annotated[
    str,
    BeforeValidator(lambda value: value if value == "" else _text(value)),
    AfterValidator(_contact),
    _text_schema("A route or contact of pager.yaml, such as on-call", pattern=_CONTACT),
]
Lasting = Annotated[
    float,
    BeforeValidator(values.seconds),
    WithJsonSchema({"type": "string", "pattern": values.TIME, "description": "A time such as 30m; 0s is never"}),
]
Period = Annotated[
    float,
    BeforeValidator(values.seconds),
    AfterValidator(_period),
    WithJsonSchema({"type": "string", "pattern": values.TIME, "description": "A time above 0s, such as 30m or 3 days"}),
]
Limit = Annotated[
    float,
    BeforeValidator(values.share),
    AfterValidator(_limit),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                   {"type": "string", "pattern": values.SHARE}],
         "description": "The share of failed runs that is too many, such as 3%"}
    ),
]  # fmt: skip
Reason = Annotated[
    str,
    BeforeValidator(_text),
    AfterValidator(_reason),
    _text_schema("What a fail may be called, such as wrong_fact", pattern=_RULE),
]
Word = Annotated[str, BeforeValidator(_text), AfterValidator(_word), _text_schema("A word, or a few")]
Steps = Annotated[StrictInt, Field(ge=2)]
Count = Annotated[StrictInt, Field(ge=1)]
