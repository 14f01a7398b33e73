"""The file of an operator's own prices: what it says, and what is said of its mistakes."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.contracts.runs import Usage
from midwatch.runtime import price_file, pricing
from midwatch.runtime.price_file import PriceErrors, PriceFile
from midwatch.runtime.pricing import Cost, price

AT = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
MILLION = Usage(input_tokens=1_000_000)


@pytest.fixture(autouse=True)
def _none_afterwards() -> Iterator[None]:
    yield
    pricing.use(())


def read(folder: Path, text: str) -> PriceFile:
    path = folder / "prices.yaml"
    path.write_text(text, encoding="utf-8")
    return price_file.read(path)


def use(folder: Path, text: str) -> None:
    pricing.use(read(folder, text).overrides)


def test_an_own_price_comes_before_the_list_and_is_priced(tmp_path: Path) -> None:
    use(tmp_path, "openai:\n  gpt-4o-mini: {input: $0.30, output: 1.20}\n")
    assert price("openai", "gpt-4o-mini", MILLION, None, AT) == Cost(Decimal("0.30"), "priced")
    assert price("openai", "gpt-4o", MILLION, None, AT) == Cost(Decimal("2.5"), "priced")


def test_every_kind_of_token_and_the_request_have_their_own_rate(tmp_path: Path) -> None:
    use(
        tmp_path,
        """
        openai:
          mine: {input: 1, output: 10, cache_read: 0.1, cache_write: 2, reasoning: 20, request: $0.01}
    """,
    )
    usage = Usage(
        input_tokens=1_000_000, output_tokens=1_000_000, cache_read_tokens=300_000, cache_write_tokens=200_000,
        reasoning_tokens=400_000,
    )  # fmt: skip
    # 500,000 plain, 300,000 read, 200,000 written; 600,000 said, 400,000 thought; one request
    expected = Decimal("0.5") + Decimal("0.03") + Decimal("0.4") + Decimal(6) + Decimal(8) + Decimal("0.01")
    assert price("openai", "mine", usage, None, AT) == Cost(expected, "priced")


def test_what_a_price_leaves_out_costs_what_input_and_output_do(tmp_path: Path) -> None:
    use(tmp_path, "openai:\n  mine: {input: 1, output: 10}\n")
    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000, cache_read_tokens=500_000, reasoning_tokens=500_000)
    assert price("openai", "mine", usage, None, AT) == Cost(Decimal(11), "priced")


@pytest.mark.parametrize(
    ("model", "amount"), [("gpt-9", "3"), ("gpt-9-mini", "2"), ("gpt-9-mini-2027", "2"), ("gpt-9-large", "1")]
)
def test_an_exact_name_comes_first_then_the_longest_beginning(tmp_path: Path, model: str, amount: str) -> None:
    use(
        tmp_path,
        """
        openai:
          gpt-9*: {input: 1, output: 1}
          gpt-9-mini*: {input: 2, output: 1}
          GPT-9: {input: 3, output: 1}
    """,
    )
    assert price("openai", model, MILLION, None, AT).amount == Decimal(amount)


@pytest.mark.parametrize(
    ("provider", "model", "basis"),
    [
        ("azure.ai.openai", "gpt-4o", "priced"),
        ("Azure_OpenAI", "gpt-4o", "priced"),
        (None, "azure/gpt-4o", "priced"),
        ("litellm", "azure/gpt-4o", "priced"),
        ("azure", "azure/gpt-4o", "priced"),
        # who serves it is not sure: the call names another than the model's name does
        ("deepseek", "azure/gpt-4o", "estimated"),
    ],
)
def test_every_name_of_a_provider_means_it(tmp_path: Path, provider: str | None, model: str, basis: str) -> None:
    use(tmp_path, "azure.ai.inference:\n  gpt-4o: {input: 7, output: 1}\n")
    assert price(provider, model, MILLION, None, AT) == Cost(Decimal(7), basis)  # type: ignore[arg-type]


def test_a_call_that_names_no_provider_has_its_makers_own_price_as_an_estimate(tmp_path: Path) -> None:
    use(tmp_path, "openai:\n  gpt-4o: {input: 7, output: 1}\n")
    assert price(None, "gpt-4o", MILLION, None, AT) == Cost(Decimal(7), "estimated")


def test_a_price_for_any_provider_holds_where_no_other_does(tmp_path: Path) -> None:
    use(tmp_path, "any:\n  gpt-4o: {input: 7, output: 1}\nazure:\n  gpt-4o: {input: 8, output: 1}\n")
    assert price(None, "gpt-4o", MILLION, None, AT) == Cost(Decimal(7), "priced")
    assert price("acme", "gpt-4o", MILLION, None, AT) == Cost(Decimal(7), "priced")
    assert price("azure", "gpt-4o", MILLION, None, AT) == Cost(Decimal(8), "priced")


def test_a_local_model_has_only_the_price_that_is_written_for_it(tmp_path: Path) -> None:
    use(
        tmp_path,
        """
        any: {"*": {input: 7, output: 1}}
        ollama: {qwen2.5*: {input: 0, output: 0}}
        vllm: {llama: {input: 0.05, output: 0.05}}
    """,
    )
    assert price("ollama_chat", "qwen2.5:7b", MILLION, "0", AT) == Cost(Decimal(0), "priced")
    assert price(None, "ollama/qwen2.5:7b", MILLION, None, AT) == Cost(Decimal(0), "priced")
    assert price("hosted_vllm", "llama", MILLION, None, AT) == Cost(Decimal("0.05"), "priced")
    assert price("ollama", "mistral", MILLION, None, AT) == Cost(None, "unpriced")


def test_past_a_tier_every_token_costs_its_price(tmp_path: Path) -> None:
    use(
        tmp_path,
        """
        openai:
          mine:
            input: 1
            output: 10
            tiers:
              - {above: 1000, input: 2}
              - {above: 2000, input: 3, output: 30}
    """,
    )

    def cost(tokens: int) -> Decimal | None:
        return price("openai", "mine", Usage(input_tokens=tokens, output_tokens=1000), None, AT).amount

    assert cost(1000) == Decimal("0.001") + Decimal("0.01")
    assert cost(1001) == Decimal("0.002002") + Decimal("0.01")
    assert cost(2001) == Decimal("0.006003") + Decimal("0.03")


def test_a_price_holds_from_its_day_in_utc_and_before_all_of_them_the_list_does(tmp_path: Path) -> None:
    use(
        tmp_path,
        """
        openai:
          gpt-4o-mini:
            - {from: 2026-06-01, input: 3, output: 1}
            - {from: 2026-01-01, input: 2, output: 1}
          mine:
            - {input: 1, output: 1}
            - {from: 2026-06-01, input: 3, output: 1}
    """,
    )

    def at(model: str, moment: str) -> Decimal | None:
        return price("openai", model, MILLION, None, datetime.fromisoformat(moment)).amount

    assert at("gpt-4o-mini", "2025-12-31T23:59:59+00:00") == Decimal("0.15")
    assert at("gpt-4o-mini", "2026-01-01T00:00:00+00:00") == Decimal(2)
    assert at("gpt-4o-mini", "2026-06-01T01:00:00+02:00") == Decimal(2)
    assert at("gpt-4o-mini", "2026-06-01T00:00:00+00:00") == Decimal(3)
    assert at("mine", "2020-01-01T00:00:00+00:00") == Decimal(1)


def test_new_prices_replace_all_that_was_looked_up_before(tmp_path: Path) -> None:
    assert price("openai", "gpt-4o-mini", MILLION, None, AT).amount == Decimal("0.15")
    use(tmp_path, "openai: {gpt-4o-mini: {input: 3, output: 1}}")
    assert price("openai", "gpt-4o-mini", MILLION, None, AT).amount == Decimal(3)
    pricing.use(())
    assert price("openai", "gpt-4o-mini", MILLION, None, AT).amount == Decimal("0.15")


MISTAKES = [
    ("openai: {m: {input: 1, output: 1, cache_raed: 1}}",
     "1:35: `openai.m.cache_raed` is no key of a price: did you mean `cache_read`?"),
    ("openai: {m: {input: 1, output: 1, form: 2026-01-01}}",
     "1:35: `openai.m.form` is no key of a price: did you mean `from`?"),
    ("openai:\n  m: {input: 1, output: 1, tiers: [{abov: 5, input: 1}]}",
     "2:36: `openai.m.tiers[1].above` is missing: the number of input tokens past which the tier holds"),
    ("openai: {m: {input: -1, output: 1}}",
     "1:21: `openai.m.input` must not be negative: write US dollars such as $1 or 0.50"),
    ("openai: {m: {input: cheap, output: 1}}", "1:21: `openai.m.input` must be US dollars such as $1 or 0.50"),
    ("openai:\n  m: {input: 1}",
     "2:6: `openai.m.output` is missing: US dollars a million output tokens, 0 where they cost nothing"),
    ("openai: {m: {from: tomorrow, input: 1, output: 1}}", "1:20: `openai.m.from` must be a date such as 2026-01-31"),
    ("openai: {m: {from: 2026-02-30, input: 1, output: 1}}",
     "1:20: `openai.m.from` must be a date such as 2026-01-31"),
    ("openai: {m: {input: 1, output: 1, tiers: 5}}",
     "1:42: `openai.m.tiers` must be a list: begin each of its lines with `- `"),
    ("openai: {m: {input: 1, output: 1, tiers: [{above: 0, input: 1}]}}",
     "1:51: `openai.m.tiers[1].above` must be a whole number of tokens, 1 or more"),
    ("openai: {m: {input: 1, output: 1, tiers: [{above: 5, input: 1}, {above: 5, input: 2}]}}",
     "1:42: `openai.m.tiers` has two tiers above the same number"),
    ("openai: {g*t: {input: 1, output: 1}}",
     "1:10: `g*t` has `*` inside: it may only end a name, for all that begin so"),
    ("openai: {m: }",
     "1:10: `openai.m` must be a price such as `gpt-4o-mini: {input: 0.15, output: 0.60}`, or a list of them"),
    ("openai: {m: []}", "1:13: `openai.m` is empty: write a price such as `gpt-4o-mini: {input: 0.15, output: 0.60}`"),
    ("openai: {m: [{input: 1, output: 1}, {input: 2, output: 1}]}",
     "1:10: `openai.m` has two prices without `from`: keep one"),
    ("azure: {m: {input: 1, output: 1}}\nazure.ai.openai: {M: {input: 1, output: 1}}",
     "2:19: `azure.ai.openai.M` says again what is on line 1: keep one"),
    ("openai: 5", "1:9: `openai` must hold models, such as `gpt-4o-mini: {input: 0.15, output: 0.60}`"),
    ("- openai", "1:1: it must hold providers, such as `openai:`, and below each models such as "
     "`gpt-4o-mini: {input: 0.15, output: 0.60}`"),
    ("", "1:1: the file is empty: write prices into it or remove it"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), MISTAKES)
def test_a_mistake_is_named_with_its_place_and_its_mend(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PriceErrors) as error:
        read(tmp_path, text)
    assert f"{tmp_path / 'prices.yaml'}:{said}" in error.value.lines


def test_all_mistakes_are_named_at_once_in_their_order(tmp_path: Path) -> None:
    with pytest.raises(PriceErrors) as error:
        read(tmp_path, "openai:\n  a: {input: x, output: 1}\n  b: 5\nazure:\n  c: {output: 1}\n")
    assert [line.split(":")[1] for line in error.value.lines] == ["2", "3", "5"]


def test_a_provider_that_nobody_knows_is_remarked_upon_and_still_counts(tmp_path: Path) -> None:
    found = read(tmp_path, "opnai: {m: {input: 1, output: 1}}\nacme-gateway: {m: {input: 2, output: 1}}\n")
    assert [note.partition("prices.yaml")[2] for note in found.notes] == [
        ":1: 'opnai' is no provider that Midwatch knows: did you mean 'openai'?",
        ":2: 'acme-gateway' is no provider that Midwatch knows: its prices hold for calls that name it so",
    ]
    pricing.use(found.overrides)
    assert price("Acme-Gateway", "m", MILLION, None, AT) == Cost(Decimal(2), "priced")


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(PriceErrors, match=r"absent\.yaml: cannot be read: no such file or directory"):
        price_file.read(tmp_path / "absent.yaml")


VALUES = st.recursive(
    st.sampled_from(["1", "-1", "0.5", "$1", "x", "null", "true", "2026-01-01", "1e9", ".inf", '"*"', "9" * 50, "''"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]")
    | st.dictionaries(
        st.sampled_from(["input", "output", "cache_read", "from", "tiers", "above", "request", "m*", "a*b", "7", "''"]),
        inner, max_size=4,
    ).map(lambda parts: "{" + ", ".join(f"{key}: {value}" for key, value in parts.items()) + "}"),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["openai", "any", "ollama", "7", "x y"]), VALUES, max_size=3) | st.binary())
def test_no_content_whatever_does_more_than_name_mistakes(
    tmp_path_factory: pytest.TempPathFactory, said: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-prices.yaml"
    if isinstance(said, dict):
        path.write_text("\n".join(f"{key}: {value}" for key, value in said.items()), encoding="utf-8")
    elif isinstance(said, bytes):
        path.write_bytes(said)
    try:
        found = price_file.read(path)
    except PriceErrors as error:
        assert error.lines
    else:
        pricing.use(found.overrides)
        price("openai", "mine", MILLION, None, AT)


def test_the_example_in_the_documentation_is_accepted_as_it_is(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "prices.md").read_text(encoding="utf-8")
    found = read(tmp_path, page.split("```yaml\n")[1].split("```")[0])
    assert (len(found.overrides), found.notes) == (6, ())
