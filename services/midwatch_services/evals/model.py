"""What the file of a case may hold, and no other."""

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, model_validator

from midwatch_services.cards.base import Section, text, text_schema
from midwatch_services.cards.fields import Money

from .case import Kind, Missing
from .conditions import condition, path

NAME = r"^[a-z0-9][a-z0-9_-]{0,99}$"
TWIN_NAME = r"^[a-z0-9][a-z0-9_-]{0,119}$"  # a case's with what was done to it
SPEC = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
HASH = r"^[0-9a-f]{64}$"
_LONG = 256 * 1024  # characters of one message
Perturbation = Literal["typos", "shouting", "several", "language", "instruct"]
PERTURBATIONS: tuple[Perturbation, ...] = get_args(Perturbation)


def _name(value: str) -> str:
    if not re.match(NAME, value):
        raise ValueError("is no name of a case: use lower-case letters, digits, `-` and `_`, at most 100")
    return value


def _twin_name(value: str) -> str:
    if not re.match(TWIN_NAME, value):
        raise ValueError("is no name of a twin: `midwatch eval stress` makes it anew")
    return value


def _words(value: Any) -> str:
    """What somebody said, as it was said."""
    if not isinstance(value, str):
        raise ValueError('must be text: put it in "quotes"')
    if not value.strip():
        raise ValueError("is empty")
    if len(value) > _LONG:
        raise ValueError(f"has {len(value):,} characters: at most {_LONG:,}")
    return value


def _spec(value: str) -> str:
    if not re.match(SPEC, value):
        raise ValueError("must be `module:function`, such as `my_judges:polite`")
    return value


def _hash(value: str) -> str:
    if not re.match(HASH, value):
        raise ValueError("must be 64 hex digits; `midwatch eval agree` writes it")
    return value


def _condition(value: str) -> str:
    condition(value)
    return value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


def _arguments(value: Any) -> Any:
    for name in value if isinstance(value, dict) else ():
        if name.startswith("$"):
            try:
                path(name)
            except ValueError as error:
                raise ValueError(f"names `{name}`, which {error}") from None
    return value


Name = Annotated[str, BeforeValidator(text), AfterValidator(_name), text_schema("The case's name", pattern=NAME)]
TwinName = Annotated[
    str, BeforeValidator(text), AfterValidator(_twin_name), text_schema("The twin's name", pattern=TWIN_NAME)
]
Line = Annotated[str, BeforeValidator(text), text_schema("One line of text")]
Words = Annotated[str, BeforeValidator(_words), text_schema("What is said")]
Spec = Annotated[str, BeforeValidator(text), AfterValidator(_spec), text_schema("`module:function`", pattern=SPEC)]
Condition = Annotated[
    str, BeforeValidator(text), AfterValidator(_condition), text_schema("A condition over the arguments, in CEL")
]
Arguments = Annotated[dict[str, Any], BeforeValidator(_arguments)]


Hash = Annotated[str, BeforeValidator(text), AfterValidator(_hash), text_schema("SHA-256 in hex", pattern=HASH)]


class From(Section):
    """The run that the case was made from."""

    run: Line
    version: Line | None = None


class Said(Section):
    """One message before the case begins, as `customer: …`, `agent: …` or `human: …`."""

    customer: Words | None = None
    agent: Words | None = None
    human: Words | None = None

    @model_validator(mode="after")
    def _one(self) -> "Said":
        if len(self.model_fields_set) != 1:
            raise ValueError("must be one of `customer: …`, `agent: …` and `human: …`")
        return self


class Rule(Section):
    """A call of a tool: arguments by their names, or by JSONPath (`$.order.id`); `when`: a condition over them."""

    tool: Line
    arguments: Arguments = Field(default_factory=dict)
    when: Condition | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"tool": value} if isinstance(value, str) else value


Phrases = Annotated[list[Line], BeforeValidator(_several)]
Rules = Annotated[list[Rule], BeforeValidator(_several)]


class Expect(Section):
    """What is asked of the agent. All of it must hold; what is left out is not judged."""

    says: Phrases = Field(default=[], description="It says each of these, whatever the letters' case")
    says_not: Phrases = Field(default=[], description="It says none of these")
    calls: Rules = Field(default=[], description="It makes each of these calls")
    calls_not: Rules = Field(default=[], description="It makes none of these calls")
    writes: Rules | None = Field(
        default=None, description="These writes succeed, each as often as it stands here, and no other; [] is none"
    )
    hands_off: StrictBool | None = Field(default=None, description="Whether it hands the case off")
    max_cost: Money | None = None
    max_steps: Annotated[StrictInt, Field(ge=1)] | None = Field(
        default=None, description="Model and tool calls together"
    )
    judge: Spec | None = Field(default=None, description="A function of your own that says yes or no")


class Call(Section):
    """A call of the recorded run, and what came back."""

    tool: Line
    arguments: Any = None
    result: Any = None
    error: str | None = None
    kind: Kind | None = None


class Signed(Section):
    """Somebody agreed with the criteria, which then had this hash; written by `midwatch eval agree`."""

    by: Line
    at: Line
    hash: Hash


class Twin(Section):
    """Which case the twin is a perturbed copy of, how, the hash that the case then had, and the runs whose words it
    holds."""

    of: Name
    how: Perturbation
    hash: Hash
    runs: list[Line] | None = None


class CaseFile(Section):
    """One conversation to replay, and what is asked of the agent."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)

    case: Name
    about: Line | None = None
    task: Line | None = Field(default=None, description="What it is about, where several runs are of the same")
    source: From | None = Field(default=None, alias="from")
    earlier: list[Said] = Field(default_factory=list)
    conversation: Annotated[list[Words], BeforeValidator(_several), Field(min_length=1)]
    expect: Expect = Expect()
    missing: Missing = Field(default="nearest", description="What answers a call that is not recorded")
    tools: dict[str, Kind] = Field(default_factory=dict, description="What each tool does: read, write or other")
    recorded: list[Call] = Field(default_factory=list)
    agreed: list[Signed] = Field(default_factory=list)


class TwinFile(Section):
    """A perturbed twin of a case: only what the customer says differs. Written by `midwatch eval stress`."""

    case: TwinName
    twin: Twin
    conversation: Annotated[list[Words], BeforeValidator(_several), Field(min_length=1)]
