"""Whether a request comes from a page of ours. Pure."""

from collections.abc import Mapping
from urllib.parse import urlsplit


def is_ours(headers: Mapping[str, str], hosts: frozenset[str]) -> bool:
    """Whether the browser says that the request comes from a page of the console. One that says nothing is believed:
    its token decides."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        return False
    try:
        return origin is None or urlsplit(origin).netloc in hosts
    except ValueError:
        return False


def is_smuggled(headers: Mapping[str, str], method: str) -> bool:
    """Whether the browser says that a page of another site sends this, and no person who follows a link from there."""
    if headers.get("sec-fetch-site") not in ("cross-site", "same-site"):
        return False
    goes_there = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return not (goes_there and method in ("GET", "HEAD"))
