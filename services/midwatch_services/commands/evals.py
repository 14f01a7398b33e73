"""`midwatch eval`: the eval set, its replay, and the gate."""

import typer

from . import eval_gate, eval_make, eval_run, eval_set, eval_stress


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    evals = typer.Typer(no_args_is_help=True, help="The eval set: make cases from runs, replay them, gate a change.")
    for part in (eval_make, eval_set, eval_stress, eval_run, eval_gate):
        part.register(evals)
    app.add_typer(evals, name="eval")
