"""Every text that people read on a page, by its name: `texts/<language>/<page>.toml`."""

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from midwatch.errors import MidwatchError


class NoText(MidwatchError):
    """There is no text {name!r}: add it to console/texts."""


class Texts:
    """The texts of one language. `t("today.title", day=…)`; where a text has `one` and `many`, `count` chooses."""

    def __init__(self, language: str, words: dict[str, Any]) -> None:
        self.language, self._words = language, words

    def __call__(self, name: str, /, **values: Any) -> str:
        found = self._found(name)
        if isinstance(found, dict) and "count" in values:
            found = found.get("one" if values["count"] == 1 else "many")
        if not isinstance(found, str):
            raise NoText(name=name)
        return found.format(**{key: _counted(value) for key, value in values.items()})

    def has(self, name: str) -> bool:
        """Whether there is such a text."""
        return isinstance(self._found(name), str)

    def _found(self, name: str) -> Any:
        found: Any = self._words
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found


def _counted(value: Any) -> Any:
    return f"{value:,}" if isinstance(value, int) else value


@cache
def load(language: str = "en") -> Texts:
    """The texts of a language, one file a page."""
    folder = resources.files(__name__) / language
    files = [one for one in folder.iterdir() if one.name.endswith(".toml")]
    return Texts(language, {one.name[:-5]: tomllib.loads(one.read_text("utf-8")) for one in files})
