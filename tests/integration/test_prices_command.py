"""`midwatch prices`: the price that would hold, where it comes from, and the file of one's own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from midwatch.runtime import pricing
from midwatch_services.commands import prices

OWN = """
azure:
  gpt-4o*: {input: 2.75, output: 11, cache_read: 1.25, request: 0.01, tiers: [{above: 5000, input: 3}]}
""".lstrip()


@pytest.fixture(autouse=True)
def _listed_prices_afterwards() -> Iterator[None]:
    yield
    pricing.use(())


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The file of one's own prices at its default place."""
    path = tmp_path / "home" / "prices.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(OWN, encoding="utf-8")
    return path


def midwatch(*words: str) -> Result:
    app = typer.Typer()
    prices.register(app)
    app.command("other")(lambda: None)  # one group alone would lose its name
    return CliRunner().invoke(app, ["prices", *words])


def test_show_prints_the_rate_its_source_and_what_an_example_costs() -> None:
    done = midwatch("show", "openai", "gpt-4o-mini", "--tokens", "input=2040,output=135,cache_read=1152")
    assert done.exit_code == 0, done.output
    first, *rest = done.stdout.splitlines()
    assert first.startswith("gpt-4o-mini of openai: priced, by genai-prices ")
    assert first.endswith(", openai/gpt-4o-mini")
    assert rest == [
        "  input       $0.15 a million tokens",
        "  output      $0.6 a million tokens",
        "  cache_read  $0.075 a million tokens",
        "  cache_write $0.15 a million tokens",
        "  reasoning   $0.6 a million tokens",
        "  2,040 input, 135 output, 1,152 cache_read: $0.0003006 (priced)",
    ]


def test_show_says_which_line_of_ones_own_file_holds(own: Path) -> None:
    done = midwatch("show", "azure.ai.openai", "gpt-4o-2024-11-20", "--tokens", "input=1000000", "--json")
    assert json.loads(done.stdout) == {
        "provider": "azure.ai.openai", "model": "gpt-4o-2024-11-20", "basis": "priced",
        "origin": f"{own}:2, azure/gpt-4o*",
        "usd_per_million": {"input": "2.75", "output": "11", "cache_read": "1.25", "cache_write": "2.75",
                            "reasoning": "11"},
        "tiers": {"input": [{"above": 5000, "usd_per_million": "3"}],
                  "cache_write": [{"above": 5000, "usd_per_million": "3"}]},
        "usd_per_request": "0.01",
        "example": {"usage": {"input_tokens": 1_000_000}, "cost_usd": "3.01", "cost_basis": "priced"},
    }  # fmt: skip


def test_show_prices_a_day_of_the_past() -> None:
    assert "  input       $10 a" in midwatch("show", "openai", "o3", "--on", "2025-06-09").stdout
    assert "  input       $2 a" in midwatch("show", "openai", "o3", "--on", "2025-06-11").stdout


def test_a_model_that_names_no_provider_is_an_estimate() -> None:
    assert midwatch("show", "-", "gpt-4o-mini").stdout.startswith("gpt-4o-mini: estimated, by genai-prices")


def test_no_price_is_a_failure_that_says_where_to_write_one(tmp_path: Path) -> None:
    done = midwatch("show", "ollama", "qwen2.5:7b")
    assert done.exit_code == 1
    assert done.stderr == (
        "midwatch: nobody lists a price of 'qwen2.5:7b' of 'ollama', so its calls are unpriced: "
        f"write one into {tmp_path / 'home' / 'prices.yaml'}\n"
    )


@pytest.mark.parametrize(
    "words", [("--tokens", "apples=3"), ("--tokens", "input"), ("--tokens", "input=-1"), ("--on", "tomorrow")]
)
def test_a_mistake_in_the_command_is_one_line(words: tuple[str, str]) -> None:
    done = midwatch("show", "openai", "gpt-4o", *words)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"midwatch: {words[0]} '{words[1]}'")
    assert done.stderr.count("\n") == 1


def test_show_does_not_hide_a_mistake_in_ones_own_file(own: Path) -> None:
    own.write_text("openai: 5\n", encoding="utf-8")
    done = midwatch("show", "openai", "gpt-4o")
    assert done.exit_code == 1
    assert f"{own}:1:9: `openai` must hold models" in done.stderr


def test_check_counts_the_prices_and_tells_remarks(own: Path) -> None:
    own.write_text(OWN + "opnai:\n  m: {input: 1, output: 1}\n", encoding="utf-8")
    done = midwatch("check")
    assert (done.exit_code, done.stdout) == (0, f"{own}: ok, 2 prices; genai-prices has the rest\n")
    assert done.stderr == f"note: {own}:3: 'opnai' is no provider that Midwatch knows: did you mean 'openai'?\n"


def test_check_names_every_mistake_and_fails(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("openai:\n  a: {input: 1, outptu: 1}\n  b: {input: -1, output: 1}\n", encoding="utf-8")
    done = midwatch("check", str(path))
    assert done.exit_code == 1
    assert [line.removeprefix(f"{path}:").split(" ")[0] for line in done.stderr.splitlines()] == [
        "2:6:", "2:17:", "3:14:",
    ]  # fmt: skip
    as_json = midwatch("check", str(path), "--json")
    assert as_json.exit_code == 1
    assert [*json.loads(as_json.stdout.splitlines()[1])] == ["error"]


def test_check_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert midwatch("check", str(tmp_path / "absent.yaml")).exit_code == 1
    done = midwatch("check")
    assert (done.exit_code, done.stdout) == (
        0, f"{tmp_path / 'home' / 'prices.yaml'}: ok, there is no such file; genai-prices has the rest\n",
    )  # fmt: skip
