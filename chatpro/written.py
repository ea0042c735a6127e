"""How things are written into the files that people take home: Markdown and HTML to read, JSON for programs.

These files outlive the service and are opened where none of its defences are: so a file to read loads nothing and runs nothing, whatever
a person or a model wrote into it, and a file for programs keeps its form, named by SCHEMA and described in docs/export.md.
All of them are written a page of messages at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cache
from html import escape
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from chatpro.domain.accounts import Account, Consent, Entitlement
from chatpro.domain.allowance import OwnLimit
from chatpro.domain.chats import AnswerState, Chat, Message

SCHEMA = "chatpro-export/1"
"""The form of the JSON files. A field that is added keeps the number; one that goes or means something else raises it."""

_STATES = {
    AnswerState.RUNNING: "still being written when this was exported",
    AnswerState.LENGTH: "reached the longest that one answer may have",
    AnswerState.STOPPED: "stopped",
    AnswerState.CUT: "cut off: the connection to the model broke",
    AnswerState.INTERRUPTED: "interrupted: the service ended while it was written",
    AnswerState.FAILED: "failed: no text came",
}

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.6 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.3}h2{font-size:.9rem;margin:2rem 0 .25rem}h2 small{font-weight:400;opacity:.75}
.own{white-space:pre-wrap;border-left:4px solid #0c6b5d;padding-left:1rem}
pre{overflow-x:auto;padding:.75rem;border:1px solid #8886;border-radius:.4rem}code{font-size:.9em}
table{border-collapse:collapse;display:block;overflow-x:auto}th,td{border:1px solid #8886;padding:.3rem .6rem;text-align:left}
.note{font-size:.875rem;opacity:.8}
@media print{body{margin:0;max-width:none;font-size:11pt}h2{break-after:avoid}pre,blockquote,tr{break-inside:avoid}pre{white-space:pre-wrap}a{color:inherit}}
"""


@dataclass(frozen=True)
class Told:
    """Who wrote the file, when, and in whose zone its times are."""

    product: str
    now: datetime
    zone: tzinfo
    zone_name: str


@dataclass(frozen=True)
class Head:
    """What is said of a chat before its messages. `others`: entries of other versions, which files to read leave out."""

    chat: Chat
    first_deleted_on: datetime
    last_deleted_on: datetime
    draft: str | None
    others: int


def zone_of(account: Account) -> tzinfo:
    """The zone this person reads dates in; UTC where the zone is not known on this machine."""
    try:
        return ZoneInfo(account.zone)
    except (KeyError, ValueError, OSError):
        return UTC


def instant(at: datetime | None) -> str | None:
    """As ISO 8601 in UTC, to the microsecond."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _moment(at: datetime, told: Told) -> str:
    local = at.astimezone(told.zone)
    return f"{local.day} {local:%B %Y, %H:%M}"


def _facts(told: Told, head: Head) -> list[str]:
    """What a reader has to know of the file."""
    first, last = (f"{at.astimezone(told.zone).day} {at.astimezone(told.zone):%B %Y}" for at in (head.first_deleted_on, head.last_deleted_on))
    goes = f"on {last}" if first == last else f"from {first} on, all of it on {last}"
    facts = [f"Exported from {told.product} on {_moment(told.now, told)} ({told.zone_name}). The service deletes this chat {goes}."]
    if head.others:
        facts.append(f"{head.others:,d} messages of other versions are not in this file; the JSON export has them.")
    return facts


def _who(message: Message, told: Told) -> tuple[str, str]:
    """Who wrote it, and what has to be known of it."""
    if message.answer is None:
        return "You", _moment(message.sent_at, told)
    state = _STATES.get(message.answer.state, "")
    return f"{told.product}, {message.answer.model}", ", ".join(part for part in (_moment(message.sent_at, told), state) if part)


# --- Markdown ---------------------------------------------------------------------------------------------------------

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_CODE = re.compile(r"(?<!`)(`+)(?!`)[^\n]*?(?<!`)\1(?!`)")
_LOADS = re.compile(r"!(?=\[)|<(?=[A-Za-z/!?])(?!https?:|mailto:)")
_SIGNS = re.compile(r"([\\`*_\[\]<>#|!~])")


def markdown(told: Told, head: Head, path: frozenset[str], pages: Iterable[Sequence[Message]]) -> Iterator[str]:
    """The conversation as it is read on the page. Own words are quoted, so that nothing in them becomes a part of what follows."""
    yield f"# {_plain(head.chat.title)}\n\n" + "".join(f"*{_plain(fact)}*\n\n" for fact in _facts(told, head))
    for page in pages:
        yield "".join(_entry_markdown(message, told) for message in page if message.id in path)
    if head.draft:
        yield f"## Not sent yet\n\n{_quoted(_still(head.draft))}\n"


def _entry_markdown(message: Message, told: Told) -> str:
    who, when = _who(message, told)
    text = _still(message.text)
    return f"## {_plain(who)}\n\n*{_plain(when)}*\n\n{_quoted(text) if message.own else text}\n\n"


def _plain(text: str) -> str:
    return _SIGNS.sub(r"\\\1", text)


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _still(text: str) -> str:
    """The same words, but nothing in them loads by itself: pictures and tags become text, code stays as it is, and an open fence is closed."""
    lines, fence = [], ""
    for line in text.splitlines():
        found = _FENCE.match(line)
        if fence:
            if found and found[1].startswith(fence) and not found[2].strip():
                fence = ""
            lines.append(line)
        elif found and not (found[1][0] == "`" and "`" in found[2]):
            fence = found[1]
            lines.append(line)
        else:
            lines.append(_outside_code(line))
    return "\n".join([*lines, fence] if fence else lines)


def _outside_code(line: str) -> str:
    done, at = [], 0
    for code in _CODE.finditer(line):
        done += [_LOADS.sub(r"\\\g<0>", line[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*done, _LOADS.sub(r"\\\g<0>", line[at:])])


# --- HTML -------------------------------------------------------------------------------------------------------------


def html(told: Told, head: Head, path: frozenset[str], pages: Iterable[Sequence[Message]]) -> Iterator[str]:
    """The same as one page that stands by itself: no program, nothing loaded, made to be printed too."""
    facts = "".join(f'<p class="note">{escape(fact)}</p>' for fact in _facts(told, head))
    yield _top_html(head.chat.title) + f'<h1 dir="auto">{escape(head.chat.title)}</h1>{facts}\n'
    for page in pages:
        yield "".join(_entry_html(message, told) for message in page if message.id in path)
    if head.draft:
        yield f"<h2>Not sent yet</h2>{_own_html(head.draft)}\n"
    yield "</main></body></html>\n"


def index(told: Told, listed: Sequence[tuple[str, Chat]]) -> str:
    """The first page of a ZIP: every chat in it, by the name of its file."""
    rows = "".join(
        f'<tr><td><a href="chats/{escape(quote(name))}.html" dir="auto">{escape(chat.title)}</a></td>'
        f"<td>{escape(_moment(chat.last_at, told))}</td><td>{chat.messages:,d}</td></tr>\n"
        for name, chat in listed
    )
    return (
        f"{_top_html(f'Chats from {told.product}')}<h1>{escape(f'Chats from {told.product}')}</h1>"
        f'<p class="note">{escape(f"Exported on {_moment(told.now, told)} ({told.zone_name}).")}</p>'
        f'<table><thead><tr><th scope="col">Chat</th><th scope="col">Last message</th><th scope="col">Messages</th></tr></thead>\n'
        f"<tbody>{rows}</tbody></table></main></body></html>\n"
    )


def _top_html(title: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<meta name="referrer" content="no-referrer"><title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>\n'
    )


def _entry_html(message: Message, told: Told) -> str:
    who, when = _who(message, told)
    head = f"<h2>{escape(who)} <small>{escape(when)}</small></h2>"
    return f"{head}{_own_html(message.text) if message.own else _answer_html(message.text)}\n"


def _own_html(text: str) -> str:
    return f'<div class="own" dir="auto">{escape(text)}</div>'


def _answer_html(text: str) -> str:
    return f'<div dir="auto">{_rendered_html(text)}</div>'


def _rendered_html(text: str) -> str:
    """An answer's markdown: the parser passes no HTML through, and its pictures are words here."""
    drawn_html = _parser().render
    return drawn_html(text)


class _Parser(MarkdownIt):
    def validateLink(self, url: str) -> bool:
        """http, https and mailto lead somewhere from a file too; anything else would be a place on the reader's own machine, or a program."""
        return bool(re.match(r"(https?://|mailto:)", url, re.IGNORECASE))


@cache
def _parser() -> MarkdownIt:
    parser = _Parser("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.add_render_rule("image", _picture)
    return parser


def _picture(renderer: RendererHTML, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    return f"[{escape(tokens[at].content)}]"


# --- JSON -------------------------------------------------------------------------------------------------------------


def json_of(told: Told, head: Head, path: frozenset[str], pages: Iterable[Sequence[Message]]) -> Iterator[str]:
    """Everything there is of a chat: all versions, and answers that were stopped or failed."""
    chat = {
        "schema": f"{SCHEMA}/chat",
        "exported_at": instant(told.now),
        "id": head.chat.id,
        "title": head.chat.title,
        "created_at": instant(head.chat.created_at),
        "last_message_at": instant(head.chat.last_at),
        "first_deleted_on": instant(head.first_deleted_on),
        "last_deleted_on": instant(head.last_deleted_on),
        "draft": head.draft,
    }
    return with_list(chat, "messages", ([_message(entry, entry.id in path) for entry in page] for page in pages))


def with_list(beside: dict[str, Any], name: str, pages: Iterable[Iterable[dict[str, Any]]]) -> Iterator[str]:
    """An object whose last member is a list that comes in pages, one element a line."""
    yield json.dumps(beside, ensure_ascii=False, indent=1)[:-2] + f",\n {json.dumps(name)}: ["
    first = True
    for page in pages:
        lines = [json.dumps(element, ensure_ascii=False) for element in page]
        if lines:
            yield ("\n  " if first else ",\n  ") + ",\n  ".join(lines)
            first = False
    yield "\n ]\n}\n"


def _message(entry: Message, shown: bool) -> dict[str, Any]:
    return {
        "id": entry.id,
        "follows": entry.parent_id,
        "author": "freelancer" if entry.own else "answer",
        "sent_at": instant(entry.sent_at),
        "shown": shown,
        "text": entry.text,
        "answer": _answer_facts(entry),
    }


def _answer_facts(entry: Message) -> dict[str, Any] | None:
    facts = entry.answer
    if facts is None:
        return None
    cost = facts.receipt
    return {
        "state": facts.state.value,
        "problem": facts.problem,
        "model": facts.model,
        "instructions_version": facts.prompt_version,
        "started_at": instant(facts.started_at),
        "ended_at": instant(facts.ended_at),
        "messages_left_out": facts.left_out,
        "shortened": facts.shortened,
        "thumb": facts.thumb or None,
        "tokens": None if cost is None else {"in": cost.tokens_in, "out": cost.tokens_out, "sent_again": cost.tokens_resent, "counted": cost.counted},
    }


def account(row: Account) -> dict[str, Any]:
    """Who the account is, here and at the sign-in provider."""
    return {
        "id": row.id,
        "sign_in": {"issuer": row.issuer, "subject": row.subject},
        "name": row.name,
        "mail": row.email,
        "zone": row.zone,
        "roles": sorted(role.value for role in row.roles),
        "made_at": instant(row.created_at),
    }


def entitlement(row: Entitlement) -> dict[str, Any]:
    """One dated grant."""
    return {
        "plan": row.plan,
        "allowance": row.allowance,
        "starts_at": instant(row.starts_at),
        "ends_at": instant(row.ends_at),
        "recorded_at": instant(row.recorded_at),
    }


def consent(row: Consent) -> dict[str, Any]:
    """One yes or no."""
    return {"given": row.given, "version": row.version, "said_at": instant(row.at)}


def own_limit(row: OwnLimit) -> dict[str, Any]:
    """One limit that was set, or lifted (null tokens)."""
    return {"tokens": row.tokens, "cycle_starts_at": instant(row.cycle_starts_at), "set_at": instant(row.at)}


def warning(kind: str, allowance: int, cycle_starts_at: datetime, given_at: datetime, put_away_at: datetime | None) -> dict[str, Any]:
    """One warning that was given."""
    return {
        "kind": kind,
        "allowance": allowance,
        "cycle_starts_at": instant(cycle_starts_at),
        "given_at": instant(given_at),
        "put_away_at": instant(put_away_at),
    }


def refusal(reason: str, tokens_wanted: int, draft_id: str, at: datetime) -> dict[str, Any]:
    """One send that was not allowed."""
    return {"reason": reason, "tokens_wanted": tokens_wanted, "draft": draft_id, "refused_at": instant(at)}


def draft(chat_id: str, text: str, at: datetime) -> dict[str, Any]:
    """Text that was written and not sent."""
    return {"chat": chat_id, "text": text, "kept_at": instant(at)}


# --- The rest of a ZIP ------------------------------------------------------------------------------------------------


def readme(told: Told, chats: int, everything: bool, ending: str) -> str:
    """What is in it, for whoever opens it in some years."""
    what = "chats/*.html, chats/*.md, chats/*.json" if everything else f"chats/*{ending}"
    lines = [
        f"Exported from {told.product} on {_moment(told.now, told)} ({told.zone_name}).",
        "",
        f"{what}: {chats:,d} chats, named by the day of their last message and their title.",
        "HTML and Markdown hold each conversation as it is read on the page. JSON holds all of it: other versions, stopped and failed answers.",
    ]
    if everything:
        lines += [
            "index.html: the list of all chats.",
            "account.json: the account, entitlements, consents, own limits, warnings, refusals, drafts, who looked at chats, and receipts.",
            "receipts.csv: a row for each answer, for spreadsheets. Times are UTC.",
        ]
    lines += ["", f"The form of the JSON files is {SCHEMA}. Times in them are UTC."]
    return "\r\n".join(lines) + "\r\n"
