"""What each tool does, from a scope card, a list of tools, or the card that is applied."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from midwatch.contracts.control import Card
from midwatch.errors import MidwatchError
from midwatch.runtime.settings import Settings

from .case import Kind

_KINDS: dict[str, Kind] = {"read": "read", "write": "write", "other": "other", "generic": "other"}


class NoKinds(MidwatchError):
    """{path} does not say what tools do ({why}): give a scope card, or JSON such as {{"issue_refund": "write"}}."""


def of_file(path: Path) -> dict[str, dict[str, Kind]]:
    """The kinds by domain; those under "" hold in each. A scope card (YAML), or JSON: `{tool: kind}`, or a domain's
    tools as `{domain: {agent: [{name, type}]}}`, of which only the agent's own count. Raises NoKinds, CardErrors."""
    if path.suffix in (".yaml", ".yml"):
        from midwatch_services.cards import load

        return {"": of_card(load(path))}
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise NoKinds(path=path, why=str(error)) from None
    if not isinstance(data, dict) or not data:
        raise NoKinds(path=path, why="it is no JSON object with names in it")
    if all(isinstance(kind, str) for kind in data.values()):
        return {"": {name: _kind(path, name, kind) for name, kind in data.items()}}
    return {domain: _of_domain(path, domain, tools) for domain, tools in data.items()}


def of_card(card: Card) -> dict[str, Kind]:
    """What the card says of each tool."""
    return {name: rule.kind for name, rule in card.tools.items()}


def applied(settings: Settings, agent: str) -> dict[str, Kind] | None:
    """What the applied card says; None where there is none or NATS does not answer."""
    import asyncio

    from midwatch_services.cards import bucket

    async def read() -> Card | None:
        async with bucket.connected(settings.url) as js:
            return (await bucket.stored(js, agent)).card

    try:
        # On a thread of its own: whoever makes a case may be in an event loop.
        with ThreadPoolExecutor(1) as pool:
            card = pool.submit(asyncio.run, read()).result()
    except MidwatchError:
        return None
    return of_card(card) if card else None


def in_domain(kinds: Mapping[str, Mapping[str, Kind]], domain: str) -> dict[str, Kind]:
    """What holds in one domain."""
    return {**kinds.get("", {}), **kinds.get(domain, {})}


def _of_domain(path: Path, domain: str, tools: Any) -> dict[str, Kind]:
    own = tools.get("agent") if isinstance(tools, dict) else tools
    if not isinstance(own, list) or not all(isinstance(one, dict) and {"name", "type"} <= one.keys() for one in own):
        raise NoKinds(path=path, why=f"under {domain!r} there is no list of tools with name and type")
    return {str(one["name"]): _kind(path, str(one["name"]), str(one["type"])) for one in own}


def _kind(path: Path, name: str, kind: str) -> Kind:
    if kind not in _KINDS:
        raise NoKinds(path=path, why=f"{name} is {kind!r}, not read, write, other or generic")
    return _KINDS[kind]
