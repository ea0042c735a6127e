"""The help page: live values, and no promise that is not kept."""

from __future__ import annotations

import re

import pytest

from chatpro.bootstrap import House
from tests.cast import Source
from tests.pages.conftest import page, words
from tests.pages.test_doors import with_settings


def test_help_tells_the_figures_that_are_in_force(house: House) -> None:
    """Another allowance, retention, limit and provider: other words on the page."""
    with_settings(
        house, allowance_tokens=123_456, retention_days=45, draft_chars=7_777, answer_tokens=999, provider_name="Example Models", provider_country="Iceland",
        plan_name="Solo", product_name="Quill",
    )  # fmt: skip

    text = words(page("help", "mara"))

    for said in (
        "123,456 tokens a month",
        "for 45 days",
        "7,777 characters",
        "at most 999 tokens",
        "run by Example Models in Iceland",
        "Solo grants",
        "What Quill does",
    ):
        assert said in text
    assert "200,000" not in re.sub(r"\d+ of 200,000 tokens", "", text)


def test_help_names_the_model_that_answers(house: House) -> None:
    """GPT-4 when it is GPT-4, a local demo model when it is that, and no name when none answers."""
    assert "GPT-4, run by OpenAI" in words(page("help", "mara"))

    with_settings(house, model=Source(house.model.model, is_local=True))
    assert "not GPT-4" in words(page("help", "mara")) and "OpenAI" not in words(page("help", "mara"))

    with_settings(house, model=Source(None))
    assert "No model is available right now." in words(page("help", "mara"))


@pytest.mark.parametrize("who", ["mara", "nia", "hal", "jude", "otto"])
def test_help_is_for_everybody_and_promises_nothing_that_is_not_there(shared_house: House, who: str) -> None:
    """Files and project notes are not built; the page does not speak of them. It does of what the account page can."""
    text = words(page("help", who)).lower()

    assert not re.search(r"upload|attach|pdf|soon|project note", text) and "close your account" in text
