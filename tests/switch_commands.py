"""The commands of the switch, run by tests in a thread of their own, as their event loop is their own."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import typer
from click.testing import Result
from typer.testing import CliRunner

from midwatch_services.commands import switch

Run = Callable[..., Coroutine[Any, Any, Result]]
app = typer.Typer()
switch.register(app)


async def run_switch(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]
