"""The card's section on the run log: how long runs are kept, and what is replaced before they are stored."""

import re
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictInt,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from midwatch.contracts import control
from midwatch.runtime import patterns

from . import values
from .base import Section, text, text_schema

KEEP_LEAST = 183  # days
REDACT_MOST = 50  # rules
_REDACTION = r"^[a-z][a-z0-9_]{0,30}$"
_FIELD = r"^[A-Za-z0-9]([A-Za-z0-9 ._-]{0,62}[A-Za-z0-9])?$"
_KINDS = tuple(rule.name for rule in control.REDACTED)


def _keep(value: float) -> float:
    if value < KEEP_LEAST * 86_400:
        raise ValueError(
            f"must be at least {KEEP_LEAST} days: the EU AI Act's Article 26 asks for logs of at least six months"
        )
    return value


def _redaction(value: str) -> str:
    if not re.match(_REDACTION, value):
        raise ValueError("must be lower-case letters, digits and `_`, at most 31, such as order_no")
    return value


def _field(value: str) -> str:
    if not re.match(_FIELD, value):
        raise ValueError("must be the name of a key: letters, digits, `_`, `-`, `.` and spaces, at most 64")
    return value


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Keep = Annotated[
    float,
    BeforeValidator(values.seconds),
    AfterValidator(_keep),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": values.TIME,
            "description": f"A time of {KEEP_LEAST} days or more, such as 400 days",
        }
    ),
]
Redaction = Annotated[
    str,
    BeforeValidator(text),
    AfterValidator(_redaction),
    text_schema("What stands in its place", pattern=_REDACTION),
]
KeyName = Annotated[str, BeforeValidator(text), AfterValidator(_field), text_schema("A key's name", pattern=_FIELD)]


class Redact(Section):
    """What the run log does not keep: a kind that it knows by `name`, what matches `pattern`, or the value of every key
    `field`. `reversible`: it is kept, encrypted, for those who hold the key."""

    name: Redaction | None = None
    pattern: str | None = Field(default=None, description="A regular expression in RE2's syntax", min_length=1)
    field: KeyName | None = Field(default=None, description="Any key of that name: its value is replaced whole")
    reversible: bool = Field(default=False, description="Encrypt it with the redaction key, rather than drop it")

    @field_validator("pattern")
    @classmethod
    def _can_be_searched(cls, value: str | None) -> str | None:
        if value is not None:
            patterns.check(value)
        return value

    @model_validator(mode="after")
    def _is_one_rule(self) -> "Redact":
        if (self.field is None) == (self.name is None):
            raise ValueError("must say what to redact: `email`, `{name: order_no, pattern: …}` or `{field: …}`")
        if self.field is not None and self.pattern is not None:
            raise ValueError("holds `field` and `pattern`: write two rules")
        if self.name is not None and self.pattern is None and self.name not in _KINDS:
            near = get_close_matches(self.name, _KINDS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else "give it a `pattern`"
            raise ValueError(f"names {self.name!r}, which is none of {', '.join(_KINDS)}: {hint}")
        if self.pattern is not None and self.name in _KINDS:
            raise ValueError(f"gives {self.name!r} a pattern of its own: choose another name")
        return self


def _no_rule_twice(rules: list[Redact]) -> list[Redact]:
    names = [rule.name or f"field {rule.field}" for rule in rules]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names {twice[0]!r} twice: leave one of them out")
    return rules


class Log(Section):
    """How long runs are kept, and what is replaced before anything of them is stored."""

    keep: Keep = control.LogRule().keep
    redact: Annotated[list[Annotated[Redact, BeforeValidator(_by_name)]], AfterValidator(_no_rule_twice)] = Field(
        default=[Redact(name=name) for name in _KINDS], max_length=REDACT_MOST, description="Rules; [] for none"
    )
    digest_words: StrictInt = Field(
        default=control.LogRule().digest_words, ge=100, le=2000, description="Words of the agent's digest, at most"
    )
