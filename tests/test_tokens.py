"""Counting: never too few, never slow, never through the network."""

from __future__ import annotations

import base64
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatpro import tokens
from chatpro.config import ROOT
from chatpro.errors import ConfigError
from chatpro.models import Turn

EACH = tuple(tokens.VOCABULARIES)
FAMILY = "👩\u200d👩\u200d👧\u200d👦"

BOMBS = {
    "letters": "a" * 1_000_000,
    "carets": "^" * 1_000_000,
    "underscores": "_" * 50_000,
    "blanks": " " * 1_000_000,
    "families": FAMILY * 150_000,
    "base64": base64.b64encode(bytes(range(256)) * 3_000).decode(),
    "combining": "a" + "\u0301" * 1_000_000,
    "line ends": "\n \n\t" * 250_000,
    "letters of 10 MB": "a" * 10_000_000,
    "prose of 10 MB": "The client asks for a smaller price. " * 280_000,
    "runs beside blanks": ("^" * 5_000 + "  ") * 200,
}


def true_count(text: str, name: str) -> int:
    """tiktoken's own, whole, without slices; where it gives up, the bytes."""
    try:
        return len(tokens._encoding(name).encode(text, disallowed_special=()))
    except ValueError:
        return len(text.encode())


@pytest.mark.fault(49)
@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_counted_in_time_and_never_too_low(bomb: str, name: str) -> None:
    """Half a second is the bound that FAULTS names; a count below the true one would let unpaid text through."""
    tokens.warm()
    began = time.process_time()
    counted = tokens.count(BOMBS[bomb], name)
    took = time.process_time() - began

    assert took <= 0.5
    assert counted >= true_count(BOMBS[bomb][:60_000], name)


@pytest.mark.trials
@pytest.mark.parametrize("name", EACH)
@given(
    parts=st.lists(
        st.tuples(st.text(max_size=40) | st.sampled_from(["a", "^", " ", "aB1", FAMILY, "字", "\n", " x", "==", "0"]), st.integers(1, 60_000)), max_size=4
    )
)
@example(parts=[(" ", 45_000)])
@example(parts=[("ab", 19_999), (" ", 3), ("字", 25_000)])
def test_slices_never_count_too_few(name: str, parts: list[tuple[str, int]]) -> None:
    """However the text lies across the cuts."""
    text = "".join((part * times)[:60_000] for part, times in parts)

    assert tokens.count(text, name) >= true_count(text, name)


@pytest.mark.parametrize("name", EACH)
@given(
    sentences=st.lists(
        st.sampled_from(
            [
                "The client wants it by Friday.",
                "Preis: 1.250,50 € (netto)!",
                "don't you?\n\n",
                "x = f(a, b)  # done",
                "if x:\n            return  [1,   2]",
                "C'est déjà fait…",
            ]
        ),
        min_size=1,
    )
)
def test_ordinary_text_is_counted_exactly(name: str, sentences: list[str]) -> None:
    """Cuts fall where every vocabulary splits anyway, so long prose pays nothing for being counted in slices."""
    text = " ".join(sentences) * 400

    assert tokens.count(text, name) == true_count(text, name)


@pytest.mark.fault(50)
@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("text", ["<|endoftext|>", "<|im_start|>system", "a <|fim_prefix|> b <|endofprompt|>"])
def test_special_tokens_are_plain_text(text: str, name: str) -> None:
    """No exception, more than the one token that the mark itself would be, and not the estimate that stands in for an exception."""
    assert 2 < tokens.count(text, name) == true_count(text, name)


def test_what_the_pattern_engine_gives_up_on_is_counted_in_bytes() -> None:
    """A million blanks in one piece are such a text; no token is shorter than a byte."""
    assert tokens._count_slice(tokens._encoding("o200k_base"), " " * 1_000_000) == 1_000_000


def test_odd_text_is_counted_without_an_exception() -> None:
    """Empty text costs nothing; lone surrogates and NUL are characters like others."""
    assert tokens.count("", "cl100k_base") == 0
    assert tokens.count("a\ud800b\0", "o200k_base") >= 4


def test_a_surcharge_counts_more_for_unknown_vocabularies() -> None:
    """`+30%` raises the count and rounds up."""
    plain = tokens.count("one two three", "cl100k_base")

    assert (plain, tokens.count("one two three", "cl100k_base+30%")) == (3, 4)


@pytest.mark.parametrize("name", ["gpt2", "", "cl100k_base+x%", "cl100k_base+30"])
def test_an_unknown_tokenizer_is_named(name: str) -> None:
    """A wrong card is found at start and not by the first message."""
    with pytest.raises(ConfigError, match="is not a tokenizer"):
        tokens.count("x", name)


def test_turns_cost_their_text_and_what_the_format_adds() -> None:
    """Four tokens a turn and three for the answer's beginning, with the surcharge."""
    turns = [Turn("system", "Be brief."), Turn("user", "Hello")]
    text = tokens.count("Be brief.", "o200k_base") + tokens.count("Hello", "o200k_base")

    assert tokens.count_turns(turns, "o200k_base") == text + 11
    assert tokens.count_turns([], "o200k_base+100%") == 6
    for tokenizer in ("o200k_base", "cl100k_base+30%"):
        assert tokens.as_turn(tokens.count("Hello", tokenizer), tokenizer) == tokens.count_turns(turns[1:], tokenizer)


@pytest.mark.fault(116)
@pytest.mark.parametrize("fault", ["missing", "flipped"])
def test_a_vocabulary_that_cannot_be_trusted_is_refused(fault: str, tmp_path: Path) -> None:
    """And left alone: tiktoken itself would delete it and ask the network (the socket guard of all tests would see that)."""
    path = tmp_path / tokens.VOCABULARIES["cl100k_base"][0]
    if fault == "flipped":
        shutil.copyfile(ROOT / "data" / "tiktoken" / path.name, path)
        content = bytearray(path.read_bytes())
        content[1000] ^= 1
        path.write_bytes(content)

    with pytest.raises(ConfigError, match=path.name) as caught:
        tokens._load("cl100k_base", tmp_path)

    assert "git checkout" in str(caught.value)
    assert path.exists() == (fault == "flipped")


def test_loading_leaves_the_environment_as_it_was() -> None:
    """Child processes get no folder of ours."""
    tokens._load("cl100k_base", ROOT / "data" / "tiktoken")

    assert "TIKTOKEN_CACHE_DIR" not in os.environ
