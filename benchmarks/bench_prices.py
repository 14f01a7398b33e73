"""What we compute beside what was published, call by call, for every model of 653 runs; and how long pricing takes.

`python benchmarks/bench_prices.py [--json] [--data FOLDER]`. A call agrees within 0.5 %. Where the published usage
names no cached tokens and the published cost is lower than every token at its full price, the number of tokens that
would have to come from the cache follows from both; where that is a whole number of blocks of 128 tokens, as OpenAI
caches them, and not more than the input, it is what happened.
"""

import argparse
import gzip
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from load import QUICK

from midwatch.contracts.runs import CostBasis, Usage
from midwatch.runtime import price_file, pricing

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CLOSE = Decimal("0.005")
BLOCK = 128  # tokens that OpenAI's cache holds together
# The runs name no provider; these are the makers' own, called through LiteLLM.
MAKERS = {"gpt": "openai", "o": "openai", "claude": "anthropic"}
# What the run's own price list (LiteLLM's, of December 2025) has for Azure, which genai-prices borrows from OpenAI.
AZURE = "azure:\n  gpt-4o-2024-11-20: {input: 2.75, output: 11, cache_read: 1.25}\n"


class Call(NamedTuple):
    """A model call as it was published."""

    provider: str | None
    model: str
    usage: Usage
    cost: Decimal | None
    at: datetime


def calls(folder: Path) -> Iterator[Call]:
    """Every call with tokens, of the agents and of the models that played their customers."""
    with gzip.open(folder / "agent-runs" / "runs.jsonl.gz") as lines:
        for line in lines:
            run = json.loads(line)
            for message in run["messages"]:
                if message["role"] in ("assistant", "user") and (usage := usage_of(message)):
                    teller = "agent" if message["role"] == "assistant" else "user_simulator"
                    name = message.get("model") or run[teller]["model"]
                    provider, slash, model = name.partition("/")
                    maker = next((maker for begin, maker in MAKERS.items() if name.startswith(begin)), None)
                    at = datetime.fromisoformat(message.get("ts") or run["started_at"] or "2026-01-01")
                    cost = None if message.get("cost_usd") is None else Decimal(repr(message["cost_usd"]))
                    known = provider in pricing.PROVIDERS or provider in pricing.LOCAL
                    yield Call(
                        provider if slash and known else maker, model if slash and known else name, usage, cost,
                        at if at.tzinfo else at.replace(tzinfo=UTC),
                    )  # fmt: skip


def usage_of(message: dict[str, Any]) -> Usage | None:
    usage = message.get("usage") or {}
    if not usage.get("prompt_tokens"):
        return None
    theirs = usage.get("provider_usage") or {}
    read = theirs.get("cache_read_input_tokens") or theirs.get("prompt_tokens_details.cached_tokens") or 0
    return Usage(
        input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"], cache_read_tokens=read,
        cache_write_tokens=theirs.get("cache_creation_input_tokens") or 0,
    )  # fmt: skip


def computed(call: Call) -> tuple[Decimal | None, CostBasis]:
    cost = pricing.price(call.provider, call.model, call.usage, None, call.at)
    return cost.amount, cost.basis


def close(amount: Decimal, published: Decimal) -> bool:
    return abs(amount / published - 1) <= CLOSE


def of_cache(call: Call, amount: Decimal) -> bool:
    """Whether whole blocks of cached tokens that the usage leaves out make up for the whole difference."""
    found = pricing.tariff(call.provider, call.model)
    if found is None or call.cost is None or call.usage.cache_read_tokens:
        return False
    rates = found.at(call.at)[1]
    assert rates.input is not None and rates.cache_read is not None
    blocks = (amount - call.cost) / (rates.input.base - rates.cache_read.base) / BLOCK
    return abs(blocks - round(blocks)) < Decimal("0.001") and 0 < round(blocks) * BLOCK <= call.usage.input_tokens


def compare(name: str, of_model: list[Call]) -> list[dict[str, Any]]:
    """The rows of one model whose costs were published."""
    ratios, agree, explained = [], 0, 0
    for call in of_model:
        amount, _ = computed(call)
        assert amount is not None and call.cost is not None
        ratios.append(float(amount / call.cost))
        agree += close(amount, call.cost)
        explained += not close(amount, call.cost) and of_cache(call, amount)
    share, whole = 100 * agree / len(of_model), 100 * (agree + explained) / len(of_model)
    rows = [{
        "name": f"{name}, {len(of_model):,} calls: cost within 0.5 % of the published", "value": share, "unit": "%",
        "target": "", "peer": "computed to published, median", "peer_value": statistics.median(ratios),
        "ratio": agree / len(of_model),
    }]  # fmt: skip
    if whole > share:
        rows.append({
            "name": f"{name}: the same, with the cached tokens that the usage leaves out", "value": whole, "unit": "%",
            "target": "100", "peer": "calls in which they make up for all of it", "peer_value": explained,
            "ratio": (agree + explained) / len(of_model),
        })  # fmt: skip
    return rows


def costs(folder: Path) -> list[dict[str, Any]]:
    """The rows of every model."""
    known, unknown = defaultdict[str, list[Call]](list), defaultdict[str, list[Call]](list)
    for call in calls(folder):
        name = f"{call.model} ({call.provider})" if call.provider else call.model
        (known if call.cost else unknown)[name].append(call)
    rows: list[dict[str, Any]] = []
    for name, of_model in sorted(known.items()):
        rows += compare(name, of_model)
        if "(azure)" in name:
            with tempfile.TemporaryDirectory() as temporary:
                own = Path(temporary) / "prices.yaml"
                own.write_text(AZURE, encoding="utf-8")
                pricing.use(price_file.read(own).overrides)
            rows += compare(f"{name}, with Azure's price in a file of one's own", of_model)
            pricing.use(())
    for name, of_model in sorted(unknown.items()):
        bases = [computed(call)[1] for call in of_model]
        zeros = sum(call.cost is not None for call in of_model)
        told = ", ".join(f"{basis} {bases.count(basis):,}" for basis in sorted(set(bases)))
        rows.append({
            "name": f"{name}, {len(of_model):,} calls published without a cost ({zeros:,} of them as 0): {told}",
            "value": 100 * sum(basis != "unpriced" for basis in bases) / len(bases), "unit": "% have a price of ours",
        })  # fmt: skip
    return rows


def speed() -> list[dict[str, Any]]:
    """Microseconds that a warm look at a call's price takes."""
    at, usage = datetime.now(UTC), Usage(input_tokens=2040, output_tokens=135, cache_read_tokens=1152)
    count = 2_000 if QUICK else 100_000

    def micros(reported: str | None) -> float:
        best = float("inf")
        for _ in range(5):
            begin = time.perf_counter()
            for _ in range(count):
                pricing.price("openai", "gpt-4o-mini", usage, reported, at)
            best = min(best, time.perf_counter() - begin)
        return best / count * 1e6

    alone, both = micros(None), micros("0.0003006")
    return [{
        "name": "pricing a model call whose cost was reported, both figures", "value": both, "unit": "µs",
        "target": "< 5", "peer": "one that has to be priced, µs", "peer_value": alone, "ratio": both / alone,
    }]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--data", type=Path, default=DATA, metavar="FOLDER", help="the published runs")
    options = parser.parse_args()
    rows = speed()
    if options.data.is_dir():
        rows += costs(options.data)
    else:
        sys.stderr.write(f"the published runs are not in {options.data}: no costs are compared\n")
    for row in rows:
        print(json.dumps(row) if options.json else row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
