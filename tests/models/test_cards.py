"""Cards: every model id has one, and a wrong one stops the start instead of the first message."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatpro import tokens
from chatpro.config import Settings
from chatpro.errors import ConfigError
from chatpro.models.cards import Cards

GOOD = '[unknown]\ntitle = ""\ncontext = 8192\noutput_limit = 4096\ntokenizer = "cl100k_base"\n'


@pytest.mark.parametrize(
    ("model_id", "title"),
    [
        ("gpt-4", "GPT-4"),
        ("gpt-4.1", "GPT-4.1"),
        ("gpt-4.1-2025-04-14", "GPT-4.1"),
        ("gpt-4-0613", "GPT-4"),
        ("ft:gpt-4.1:acme::abc", "GPT-4.1"),
        ("ft:gpt-4.1-2025-04-14:acme:name:abc", "GPT-4.1"),
        ("llama3.2:1b", "llama3.2:1b"),
        ("gpt-4-turbo", "gpt-4-turbo"),
        ("unknown", "unknown"),
    ],
)
def test_a_model_has_its_own_card_its_bases_or_the_cautious_one(model_id: str, title: str) -> None:
    """The card keeps the id that was asked for, since that is what the provider is asked for."""
    card = Cards().of(model_id)

    assert (card.id, card.title) == (model_id, title)


@given(model_id=st.text() | st.text().map("ft:{}".format))
def test_no_id_crashes(model_id: str) -> None:
    """A provider's list may hold anything."""
    assert Cards().of(model_id).context >= 4096


@pytest.mark.parametrize("model_id", [*Settings.models, "gpt-4o", "gpt-4o-mini", "local-gemma-3-270m", "whatever"])
def test_every_card_can_be_counted_and_has_room(model_id: str) -> None:
    """Its tokenizer exists, and one message of the default sizes fits."""
    card = Cards().of(model_id)

    assert tokens.count("Dear client", card.tokenizer) >= 2
    assert card.context - min(Settings.answer_tokens, card.output_limit) >= 2_000


def test_the_shutdown_dates_are_on_the_cards() -> None:
    """OpenAI's announcements, by which the operator is warned."""
    assert [Cards().of(model_id).shutdown_date for model_id in Settings.models] == [date(2026, 10, 23), date(2027, 1, 14), None]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpt-4 = 3\n" + GOOD,
        GOOD.replace("unknown", "gpt-4"),
        GOOD + 'colour = "red"\n',
        GOOD.replace("context = 8192\n", ""),
        GOOD + 'id = "x"\n',
        "[unknown",
        "\xff",
    ],
)
def test_a_wrong_file_of_cards_stops_the_start(text: str, tmp_path: Path) -> None:
    """And the sentence names the file."""
    path = tmp_path / "models.toml"
    path.write_text(text, encoding="latin-1")

    with pytest.raises(ConfigError, match=r"models\.toml"):
        Cards(path)


def test_a_missing_file_of_cards_stops_the_start(tmp_path: Path) -> None:
    """The program is not whole without it."""
    with pytest.raises(ConfigError, match=r"models\.toml"):
        Cards(tmp_path / "models.toml")
