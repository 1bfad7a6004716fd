"""The price list: public prices, a user's own over them, names of snapshots."""

from __future__ import annotations

from pathlib import Path

import pytest

from safesail.errors import ConfigurationError
from safesail.judging import Price, Prices


def test_public_prices_by_hand() -> None:
    prices = Prices.load()
    # 1,000 prompt tokens at 0.25 and 500 completion tokens at 2 dollars a million.
    assert prices.cost("gpt-5-mini", 1_000, 500) == pytest.approx(0.00025 + 0.001)
    assert prices.cost("nobody-knows-this-model", 1_000, 500) is None
    price = prices.find("gpt-4o")
    assert price is not None
    assert price.cost(1_000_000, 0, batch=True) == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("a", 1.0),
        ("a-mini", 2.0),
        ("a-mini-2025-08-07", 2.0),
        ("a-20250807", 1.0),
        ("a-0613", 1.0),
        ("a-latest", 1.0),
        # Other models at other prices, not snapshots.
        ("a-pro", None),
        ("a-4-5", None),
        ("a.1", None),
        ("ab", None),
        ("x/a", None),
    ],
)
def test_a_name_stands_for_its_snapshots_and_nothing_else(
    model: str, expected: float | None
) -> None:
    prices = Prices({"a": Price(input=1, output=1), "a-mini": Price(input=2, output=2)})
    assert prices.cost(model, 1_000_000, 0) == expected


def test_own_prices_go_first_and_hold_on_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('[models."gpt-4o"]\ninput = 1\noutput = 2\n\n[models.mine]\ninput=3\noutput=4')
    prices = Prices.load(path)
    assert prices.find("gpt-4o") == Price(input=1, output=2)
    assert prices.find("gpt-4o-mini") is not None
    assert prices.at("http://localhost:1/v1").find("gpt-4o-mini") is None
    assert prices.at("http://localhost:1/v1").find("mine") == Price(input=3, output=4)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[models", "not valid TOML"),
        ("[models.a]\ninput = 1", "models.a.output"),
        ("[models.a]\ninput = -1\noutput = 1", "models.a.input"),
        ("[models.a]\ninput = nan\noutput = 1", "models.a.input"),
        ("[models.a]\ninput = 1\noutput = 1\nper = 2", "models.a.per"),
        ("[prices.a]\ninput = 1\noutput = 1", "prices"),
    ],
)
def test_a_faulty_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=named) as raised:
        Prices.load(path)
    assert "mine.toml" in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        Prices.load(tmp_path / "none.toml")
