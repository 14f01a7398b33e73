"""Whether a request comes from a page of ours. Pure."""

from collections.abc import Mapping
from urllib.parse import urlsplit


def is_ours(headers: Mapping[str, str], hosts: frozenset[str]) -> bool:
    """Whether the browser says that the request comes from a page of the console. One that says nothing is believed:
    its token decides."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        return False
    return origin is None or urlsplit(origin).netloc in hosts
