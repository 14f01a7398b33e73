"""The card's JSON Schema, for editors: `python -m midwatch_services.cards.schema > docs/contract/card.schema.json`."""

import json
import sys

from midwatch.contracts.control import REDACTED

from .model import CardFile

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def text() -> str:
    """The schema as it is committed."""
    schema = CardFile.model_json_schema(mode="validation")
    schema["$defs"]["Tool"] = {"anyOf": [{"enum": ["read", "write", "other"]}, schema["$defs"]["Tool"]]}
    kinds = [rule.name for rule in REDACTED]
    schema["$defs"]["Redact"] = {"anyOf": [{"enum": kinds}, schema["$defs"]["Redact"]]}
    words = schema["$defs"]["AtLimit"]["properties"]["run"]["enum"]
    schema["$defs"]["AtLimit"] = {"anyOf": [{"enum": words}, schema["$defs"]["AtLimit"]]}
    schema = {"$schema": _DIALECT, **schema, "title": "Midwatch scope card"}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
