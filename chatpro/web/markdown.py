"""Makes a finished answer safe for st.markdown, and a person's own words safe for st.html.

Without it an answer that quotes a stranger's page can fetch a picture (and so tell that stranger what was asked), lead
somewhere else than it says, turn "$500 to $800" into a formula, or swap the words for Streamlit's own signs (`:red[…]`).

How: markdown-it parses the answer, its inline rules tell where code, links, pictures and formulas stand, and only what is
left between them gets backslashes. The answer keeps its lines; code keeps its bytes. What comes out is parsed once more,
and whatever still holds a picture or a foreign link is shown as plain text. The content policy of `headers` is the second wall.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.helpers import parseLinkLabel
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

LONGEST = 200_000
"""Characters. The longest answer a model can be allowed is about 100,000 tokens; beyond this drawing it as markdown holds a tab for seconds."""
DEEPEST = 40
"""Levels of nesting. The page draws each level by a recursive call and indents it: forty are out of sight on any screen."""
LONGEST_FORMULA = 2_000
MOST_FORMULAS = 100
"""A page of mathematics has thirty; each costs the tab about a millisecond."""

SCHEMES = frozenset({"http", "https", "mailto"})
JOINER = "\u2060"
"""Word joiner: no width, no break. The only thing that keeps Streamlit from signs that it looks for in text after backslashes are gone."""

_UNTOUCHED = re.compile(r"[!\[\]<$~:\t\r\0]|mermaid", re.IGNORECASE)
_HEAVY_TEX = re.compile(
    r"\\(?:rule|kern|mkern|hskip|mskip|hspace|vspace|raisebox|includegraphics|href|url|html\w*|[gex]?def|let|global|(?:re)?newcommand|providecommand)(?![A-Za-z])"
)
"""Commands that can make one formula larger than the page, define others, or lead away: shown as they were written instead."""
_SIGNS = re.compile(
    r"(?P<url>(?<![A-Za-z0-9])https?://[A-Za-z0-9\-._~:/?#@!$&'()*+,;=%]+)"
    r"|(?P<br><br[ \t]*/?>)"
    r"|(?P<word>:(?=(?P<name>[\w+-]+):|material/))"
    r"|(?P<sign>[\[\]<$]|(?<!~)~(?!~)|:(?=[\w:]))"
)
_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]{1,4}\Z")
_EMOJI_IN_HEXADECIMAL = frozenset({"100", "1234", "a", "b", "ab", "abc", "abcd", "bee", "cd", "de"})
_TASK = re.compile(r"\[[ xX]\](?=\s)")
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def safe_answer(text: str) -> str:
    """Markdown for st.markdown: pictures become words, only http, https and mailto lead anywhere, `$` is money and `$$` a formula."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    if len(text) > LONGEST:
        return _plain(text)
    if not _UNTOUCHED.search(text) and not _may_nest(text):
        return text
    try:
        document = _Document(text)
        safe = document.rewritten()
    except (_Refused, RecursionError):
        return _plain(text)
    return safe if not document.had_targets or _holds(safe) else _plain(text)


def user_text_html(text: str) -> str:
    """A person's own words for st.html: every character as it was typed, in its own direction. Never a file's name: st.html opens those."""
    return f'<div class="own-words" dir="auto">{escape(text.replace(chr(0), chr(0xFFFD)), quote=True)}</div>'


def link_host(href: str) -> str:
    """Where an address leads, for people: the host without www, or the address of a mail."""
    parts = urlsplit(href)
    return parts.path if parts.scheme == "mailto" else (parts.hostname or "").removeprefix("www.")


def allowed_target(href: str) -> bool:
    """http and https with a host, and mailto. Relative ones are not: an answer knows nothing of this site."""
    try:
        parts = urlsplit(href)
        return parts.scheme.lower() in SCHEMES and bool(parts.hostname if parts.scheme.lower() != "mailto" else parts.path)
    except ValueError:
        return False


class _Refused(Exception):
    """More levels than anybody reads, or a line that the parser and the source count differently: shown as plain text."""


@dataclass
class _Span:
    """A stretch of one paragraph's text that a rule of the parser recognised."""

    rule: str
    start: int
    end: int
    text: str = ""  # what stands there instead; empty: what stood there


@dataclass
class _Inline:
    """What the rules found in the paragraph being read. Lives in the parser's env, so one parser serves every thread."""

    spans: list[_Span] = field(default_factory=list)


class _Document:
    """One answer on its way: parse the blocks, then rewrite each paragraph, heading and cell where it stands in the source."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.env: dict[str, Any] = {}
        self.had_targets = "[" in text or "<" in text
        if "]:" in text:
            _DEFINITIONS.parse(text, self.env)
        self.tokens = _BLOCKS.parse(text, self.env)
        self.formulas = 0

    def rewritten(self) -> str:
        cell_from: dict[int, int] = {}
        for token, before in zip(self.tokens, [None, *self.tokens], strict=False):
            if token.level > DEEPEST:
                raise _Refused
            if token.type == "fence" and token.info.strip().lower().startswith("mermaid") and token.map:
                # A chart drawn by a program inside the answer: shown as its text, as it was while it was written.
                line = token.map[0]
                self.lines[line] = self.lines[line][: self.lines[line].index(token.markup) + len(token.markup)] + "text"
            if token.type == "inline" and token.content:
                self._inline(token, before, cell_from)
        return "\n".join(self.lines)

    def _inline(self, token: Token, before: Token | None, cell_from: dict[int, int]) -> None:
        is_cell = before is not None and before.type in ("th_open", "td_open")
        in_item = before is not None and before.type == "paragraph_open"
        new = self._words(token.content, task=in_item)
        assert token.map is not None
        first = token.map[0]
        if is_cell:
            cell_from[first] = self._cell(first, cell_from.get(first, 0), token.content, new)
            return
        for number, (old_line, new_line) in enumerate(zip(token.content.split("\n"), new.split("\n"), strict=True)):
            old_line, new_line = old_line.strip(" \t"), new_line.strip(" \t")
            source = self.lines[first + number]
            at = source.rfind(old_line)
            if at < 0:
                raise _Refused
            self.lines[first + number] = source[:at] + new_line + source[at + len(old_line) :]

    def _cell(self, line: int, start: int, old: str, new: str) -> int:
        """A cell's text stands in its row with its bars escaped; the search goes on behind it."""
        source = self.lines[line]
        for written in (old, re.sub(r"\|", r"\\|", old)):
            at = source.find(written, start)
            if at >= 0:
                new = new if written == old and "|" not in old else re.sub(r"(?<!\\)\|", r"\\|", new)
                self.lines[line] = source[:at] + new + source[at + len(written) :]
                return at + len(new)
        raise _Refused

    def _words(self, content: str, task: bool) -> str:
        """One paragraph's text with everything between code, links and formulas escaped."""
        env = {**self.env, "chatpro": _Inline()}
        tokens: list[Token] = []
        _BLOCKS.inline.parse(content, _BLOCKS, env, tokens)
        if any(token.level > DEEPEST for token in tokens):
            raise _Refused
        spans = sorted(env["chatpro"].spans, key=lambda span: (span.start, -span.end))
        out: list[str] = []
        at = 0
        if task and (mark := _TASK.match(content)):
            out.append(mark.group())
            at = mark.end()
        for span in spans:
            if span.start < at:
                continue  # inside something that is replaced as a whole
            out.append(_escaped(content[at : span.start]))
            whole = content[span.start : span.end]
            if span.rule == "math":
                self.formulas += 1
                out.append(whole if self.formulas <= MOST_FORMULAS else _escaped(whole))
            else:
                new = span.text or whole
                # A line for a line, or the rest of the paragraph would land on the wrong ones.
                out.append(new + f"\n{JOINER}" * (whole.count("\n") - new.count("\n")))
            at = span.end
        out.append(_escaped(content[at:]))
        return "".join(out)


def _escaped(text: str) -> str:
    """Plain words: nothing in them may become a link, a picture, HTML, a formula, a struck-out price or one of Streamlit's signs."""
    return _SIGNS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    if match["url"]:
        return match["url"]
    if match["br"]:
        return " "  # a line break inside a table's cell, most often; the words stay apart
    if match["word"]:
        name = match["name"] or ""
        if _HEXADECIMAL.match(name) and name not in _EMOJI_IN_HEXADECIMAL:
            return r"\:"  # a time or an address such as 12:30:45: nothing invisible may get into what people copy
        return f":{JOINER}"
    return f"\\{match['sign']}"


def _plain(text: str) -> str:
    """The whole answer as a block of text: the longest run of backticks in it plus one fences it."""
    fence = "`" * max(3, max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _may_nest(text: str) -> bool:
    """Markers enough for more levels than DEEPEST, on any line or by indent."""
    return bool(re.search(r"^(?:[ \t]*(?:>|[-*+]|\d+[.)])){12}|^[ \t]{60}|(?:[*_]+[^*_\n]{0,3}){80}", text, re.MULTILINE))


def _holds(markdown: str) -> bool:
    """The promise, asked of the result: no picture, and no link that leads elsewhere than it may."""
    return all(token.type != "image" and ("href" not in token.attrs or allowed_target(str(token.attrs["href"]))) for token in _every(_JUDGE.parse(markdown)))


def _every(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from _every(token.children or [])


# The rules of the parser, each wrapped so that it says where it stood.


def _noting(name: str, rule: Callable[[StateInline, bool], bool]) -> Callable[[StateInline, bool], bool]:
    def noted(state: StateInline, silent: bool) -> bool:
        inline = state.env.get("chatpro")
        if silent or inline is None:
            return rule(state, silent)
        start, known, pushed = state.pos, len(inline.spans), len(state.tokens)
        if not rule(state, False):
            return False
        inline.spans += _REPLACEMENTS[name](state, start, pushed) if name in _REPLACEMENTS else [_Span(name, start, state.pos)]
        if name == "image":
            del inline.spans[known:-1]  # those of its description count from another beginning
        return True

    return noted


def _image(state: StateInline, start: int, pushed: int) -> list[_Span]:
    words = " ".join("".join(" " if child.type.endswith("break") else child.content for child in state.tokens[-1].children or ()).split())
    label = f"image not loaded: {words}" if words else "image not loaded"
    return [_Span("image", start, state.pos, rf"\[{_PUNCTUATION.sub(_backslash, label)}\]")]


def _backslash(match: re.Match[str]) -> str:
    return match[1] if match[1] in ",.;:?'\"-()/ " and match[1] != ":" else f"\\{match[1]}"


def _link(state: StateInline, start: int, pushed: int) -> list[_Span]:
    href = next(str(token.attrs["href"]) for token in state.tokens[pushed:] if token.type == "link_open")
    at_line_start = start == 0 or state.src[start - 1] == "\n"
    if not allowed_target(href) or (at_line_start and state.src.startswith(":", state.pos)):
        return []  # its brackets become text with everything else; so do those of a line that defines a link
    position, state.pos = state.pos, start
    label_end = parseLinkLabel(state, start, False)
    state.pos = position
    label = state.src[start + 1 : label_end]
    host = link_host(href)
    shown = "" if host.lower() in label.lower() else f" \\({_escaped(host)}\\)"
    return [_Span("link", start, start + 1), _Span("link", label_end, state.pos, f"](<{href}>){shown}")]


def _autolink(state: StateInline, start: int, pushed: int) -> list[_Span]:
    href = next(str(token.attrs["href"]) for token in state.tokens[pushed:] if token.type == "link_open")
    return [_Span("autolink", start, state.pos)] if allowed_target(href) else []


_REPLACEMENTS: dict[str, Callable[[StateInline, int, int], list[_Span]]] = {"image": _image, "link": _link, "autolink": _autolink}


def _math(state: StateInline, silent: bool) -> bool:
    """`$$…$$` within one line. Not at a line's start when the line has no other dollar: Streamlit reads that as the start of a block."""
    if not state.src.startswith("$$", state.pos) or state.src.startswith("$$$", state.pos) or state.src[state.pos - 1 : state.pos] == "$":
        return False
    line_end = state.src.find("\n", state.pos)
    line_end = len(state.src) if line_end < 0 else line_end
    end = state.src.find("$$", state.pos + 2, min(line_end, state.posMax))
    body = state.src[state.pos + 2 : end]
    if end < 0 or not body.strip() or "$" in body or state.src.startswith("$$$", end) or not _light(body):
        return False
    if not silent:
        state.push("math", "", 0).content = body
    state.pos = end + 2
    return True


def _math_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """`$$` alone on a line, and again. Unclosed it stays text: Streamlit would take the whole rest of the answer into the formula."""
    line = _block_line(state, start)
    if line.strip() != "$$" or state.is_code_block(start):
        return False
    for number in range(start + 1, end):
        if state.sCount[number] < state.blkIndent and not state.isEmpty(number):
            return False
        if _block_line(state, number).strip() == "$$" and not state.is_code_block(number):
            body = "\n".join(_block_line(state, n) for n in range(start + 1, number))
            if "$" in body or not _light(body) or "\n\n" in body:
                return False
            if not silent:
                state.line = number + 1
                state.push("math_block", "", 0).map = [start, number + 1]
            return True
    return False


def _block_line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]


def _light(tex: str) -> bool:
    return len(tex) <= LONGEST_FORMULA and not _HEAVY_TEX.search(tex) and max((tex.count(c) for c in "{^_"), default=0) <= 300


def _parser(definitions: bool, inline: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "maxNesting": DEEPEST + 20}).enable(["table", "strikethrough"])
    parser.validateLink = lambda url: True  # type: ignore[method-assign]  # every link must be seen to be judged
    parser.disable(["html_block", "html_inline"])
    parser.block.ruler.before("fence", "math_block", _math_block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    if not definitions:
        parser.disable("reference")  # they are shown as the text they are; what they define is known from the first parse
    if not inline:
        parser.disable("inline")  # each paragraph is read on its own, where its rules can say where they stood
    rules = {rule.name: rule.fn for rule in parser.inline.ruler.__rules__}
    parser.inline.ruler.before("escape", "math", _noting("math", _math))
    for name in ("escape", "backticks", "link", "image", "autolink", "entity"):
        parser.inline.ruler.at(name, _noting(name, rules[name]))
    return parser


_DEFINITIONS = _parser(definitions=True, inline=False)
_BLOCKS = _parser(definitions=False, inline=False)
_JUDGE = _parser(definitions=True, inline=True)
