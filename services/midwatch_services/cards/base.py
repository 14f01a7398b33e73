"""What the sections of a card have in common: how text is read, and that nothing unknown is taken."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, WithJsonSchema

_TEXT_LIMIT = 2000


def text(value: Any) -> str:
    """The text on one line. Raises ValueError."""
    if isinstance(value, dict):
        raise ValueError('reads as `key: value`, not as a sentence: put it in "quotes"')
    if value is None:
        raise ValueError("is empty")
    if not isinstance(value, str):
        raise ValueError('must be text: put it in "quotes"')
    line = " ".join(value.split())
    if not line:
        raise ValueError("is empty")
    if len(line) > _TEXT_LIMIT:
        raise ValueError(f"has {len(line)} characters: at most {_TEXT_LIMIT}")
    if not line.isprintable():
        raise ValueError("holds control characters: leave them out")
    return line


def text_schema(description: str, **more: Any) -> WithJsonSchema:
    """What an editor knows of such a text."""
    return WithJsonSchema({"type": "string", "minLength": 1, "description": description, **more})


class Section(BaseModel):
    """A part of the card. `later`: keys of the full card that a later release enforces."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    later: ClassVar[frozenset[str]] = frozenset()
