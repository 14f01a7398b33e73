"""`midwatch why`: the dossier of one run, as a page and as data."""

import re
from pathlib import Path
from typing import Annotated

import typer

from .output import USAGE, JsonOption, clean, console, emit_json, fail


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("why")(why)


def why(
    run: Annotated[str, typer.Argument(help="The run's id.", metavar="RUN")],
    agent: Annotated[str | None, typer.Option(help="Whose run, where two agents have one of this id.")] = None,
    out: Annotated[Path, typer.Option(help="Folder that the two files are written to.", metavar="FOLDER")] = Path(),
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Say why a run went as it did, for whoever has to answer for it: the run in full, the scope card, switch and
    route of then, each rule with its figures, alerts, hand-off, reviews, and the proof that nothing was altered. Writes
    a page that prints well (HTML) and the same as data (JSON).

    Example: midwatch why run-8c1f --out dossiers
    """
    import asyncio

    import msgspec

    from midwatch.errors import MidwatchError
    from midwatch.runtime import price_book
    from midwatch.runtime.price_file import PriceErrors
    from midwatch.runtime.settings import Settings
    from midwatch_services.dossier.gather import ManyRuns, gather
    from midwatch_services.dossier.page import render

    from . import bus

    settings = Settings()
    try:
        price_book.use(settings)
        dossier = asyncio.run(gather(settings, run, agent, bus.user()))
    except PriceErrors as error:
        fail("\nmidwatch: ".join(error.lines), USAGE)
    except ManyRuns as error:
        fail(str(error), USAGE)
    except MidwatchError as error:
        fail(str(error))
    if as_json:
        emit_json([dossier])
        return
    name = f"why-{re.sub(r'[^A-Za-z0-9_.-]+', '_', run)[:80]}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for suffix, text in (("html", render(dossier)), ("json", msgspec.json.encode(dossier).decode())):
            path = out / f"{name}.{suffix}"
            path.write_text(text, encoding="utf-8")
            console.print(clean(path), soft_wrap=True)
    except OSError as error:
        fail(f"{error.filename or out} cannot be written ({error.strerror}): choose another folder with --out")
    for line in dossier.unknown:
        console.print(f"Not known: {clean(line)}.", soft_wrap=True)
