"""The JSON Schema of a case's file, for editors: `python -m midwatch_services.evals.schema >
docs/contract/case.schema.json`."""

import json
import sys
from typing import Any

from pydantic import TypeAdapter

from .model import CaseFile, TwinFile

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def text() -> str:
    """The schema as it is committed."""
    schema = TypeAdapter(CaseFile | TwinFile).json_schema(mode="validation")
    defs = schema["$defs"]
    defs["Rule"] = {"anyOf": [{"type": "string", "minLength": 1}, defs["Rule"]]}
    for model, several in (("Expect", ("says", "says_not", "calls", "calls_not", "writes")),
                           ("CaseFile", ("conversation",)), ("TwinFile", ("conversation",))):  # fmt: skip
        for name in several:
            _or_one(defs[model]["properties"], name)
    one = schema.pop("anyOf")
    listed = {"type": "object", "additionalProperties": False, "required": ["cases"],
              "properties": {"cases": {"type": "array", "items": {"anyOf": one}}}}  # fmt: skip
    made = {"$schema": _DIALECT, "anyOf": [*one, listed], **schema, "title": "Midwatch eval case"}
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def _or_one(properties: dict[str, dict[str, Any]], name: str) -> None:
    """A list of one entry may be written as that entry."""
    found = properties[name]
    lists = found["anyOf"][0] if "anyOf" in found else found
    ways = [lists["items"], {key: lists[key] for key in ("type", "items", "minItems") if key in lists}]
    if "anyOf" in found:
        ways.append({"type": "null"})
    kept: dict[str, Any] = {key: found[key] for key in ("title", "description", "default") if key in found}
    properties[name] = {"anyOf": ways, **kept}


if __name__ == "__main__":
    sys.stdout.write(text())
