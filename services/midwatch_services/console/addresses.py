"""Where things are told on the console. Pure."""

from urllib.parse import quote


def run_path(agent: str, run_id: str) -> str:
    """Where a run is told."""
    return f"/runs/{quote(agent, safe='')}/{quote(run_id, safe='')}"
