"""Reads the page that tells the proof of a halt."""

import re

from console_helpers import Person
from helpers import eventually


async def phase(person: Person, **scope: str) -> tuple[str, str]:
    """How the page says that a halt stands, and the page."""
    page = (await person.client.get("/stop/proof", params=scope)).text
    found = re.search(r'data-phase="(\w+)"', page)
    assert found, page
    return found[1], page


async def until(person: Person, wanted: str, **scope: str) -> str:
    async def look() -> str:
        now, page = await phase(person, **scope)
        assert now == wanted, page
        return page

    found: str = await eventually(look, 15)
    return found
