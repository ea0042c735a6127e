"""The wire: whatever a provider sends, answering sees pieces and at most one problem, and the key goes nowhere else."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

import pytest

from chatpro.config import Settings
from chatpro.errors import ModelProblem, Problem
from chatpro.models import Ended, Event, Piece, Prompt, Spent, Turn
from chatpro.models import openai as wire
from chatpro.models.openai import OpenAISource
from tests.upstream import CUT, DONE, HANG, Reply, Step, Upstream, answer, ended, event, said, status, stream, used

T = TypeVar("T")
MARKER = "m4rk3r-of-what-a-person-wrote"
PROMPT = Prompt((Turn("system", "Help freelancers."), Turn("user", f"Write to my client. {MARKER}")), answer_limit=100)


def settings(upstream: Upstream, **changes: Any) -> Settings:
    return Settings(**{"openai_api_key": "sk-test", "openai_base_url": upstream.address, "connect_seconds": 2.0, **changes})


@asynccontextmanager
async def source(upstream: Upstream, **changes: Any) -> AsyncIterator[OpenAISource]:
    found = OpenAISource(settings(upstream, **changes))
    await found.start()
    try:
        yield found
    finally:
        await found.close()


def with_source(upstream: Upstream, do: Callable[[OpenAISource], Awaitable[T]], **changes: Any) -> T:
    async def run() -> T:
        async with source(upstream, **changes) as found:
            return await do(found)

    return asyncio.run(run())


async def until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something that another thread does; the assertion after it says what it was."""
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        await asyncio.sleep(0.01)


def ask(upstream: Upstream, *, prompt: Prompt = PROMPT, seconds: float = 20.0, **changes: Any) -> tuple[str, list[Event], ModelProblem | None]:
    """The text of one answer, all its events, and how it failed if it did."""

    async def one(found: OpenAISource) -> tuple[str, list[Event], ModelProblem | None]:
        events: list[Event] = []
        problem = None
        assert found.model is not None, found.trouble
        try:
            async with asyncio.timeout(seconds):
                async for got in found.model.stream(prompt):
                    events.append(got)
        except ModelProblem as error:
            problem = error
        return "".join(got.text for got in events if isinstance(got, Piece)), events, problem

    return with_source(upstream, one, **changes)


# --- an answer that goes well -----------------------------------------------------------------------------------------


def test_an_answer_comes_as_pieces_then_figures_then_its_end() -> None:
    """The end comes last, so that whoever stops there has the figures."""
    with Upstream() as upstream:
        upstream.queue(answer("Dear client, thank you.", usage=(20, 5)))
        text, events, problem = ask(upstream)

    assert (text, problem) == ("Dear client, thank you.", None)
    assert events[-2:] == [Spent(20, 5), Ended("stop")]
    assert all(isinstance(got, Piece) and got.text for got in events[:-2])


def test_the_call_asks_for_a_stream_with_figures_and_within_the_limit() -> None:
    """A compatible server gets only what all of them know: no `store`, no reasoning effort."""
    with Upstream() as upstream:
        ask(upstream)
        asked = upstream.asked[0]

    assert asked.json == {
        "model": "gpt-4.1",
        "messages": [{"role": "system", "content": "Help freelancers."}, {"role": "user", "content": f"Write to my client. {MARKER}"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 100,
        "temperature": wire.TEMPERATURE,
    }
    assert asked.headers["authorization"] == "Bearer sk-test"


def test_a_newer_model_is_asked_the_way_its_card_says() -> None:
    """`max_completion_tokens`, an effort, and no temperature, which it would refuse."""
    with Upstream(models=["gpt-6-luna"]) as upstream:
        ask(upstream)
        asked = upstream.asked[0].json

    assert asked["max_completion_tokens"] == 100 and asked["reasoning_effort"] == "none"
    assert not {"max_tokens", "temperature"} & asked.keys()


def test_openai_itself_is_told_not_to_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OPENAI_BASE_URL the address is OpenAI's and `store` is false."""
    with Upstream() as upstream:
        monkeypatch.setattr(wire, "OPENAI_ADDRESS", upstream.address)
        ask(upstream, openai_base_url=None)

        assert upstream.asked[0].json["store"] is False


def test_no_answer_is_asked_longer_than_the_model_can() -> None:
    """A last message may reserve more than the model's output limit."""
    with Upstream(models=["gpt-4"]) as upstream:
        ask(upstream, prompt=Prompt(PROMPT.turns, answer_limit=150_000))

        assert upstream.asked[0].json["max_tokens"] == 8192


@pytest.mark.parametrize(
    ("finish", "reason"), [("stop", "stop"), ("length", "length"), ("content_filter", "declined"), ("tool_calls", "stop"), ("whim", "stop")]
)
def test_the_providers_last_word_is_understood(finish: str, reason: str) -> None:
    """Unknown words mean that it ended."""
    with Upstream() as upstream:
        upstream.queue(answer("So far", finish=finish))

        assert ask(upstream)[1][-1] == Ended(reason)  # type: ignore[arg-type]


def test_a_stream_may_be_spelled_in_any_allowed_way() -> None:
    """Bytes one by one, carriage returns, comments, named events, characters that only Python takes for line ends, a missing delta."""
    whole = (
        b": hello\r\nevent: message\r\n"
        + said("Grüße\u2028an ").replace(b"\n\n", b"\r\n\r\n")
        + b'data:{"choices":[{"delta":null}]}\n\n'
        + said("Ana\x85\ud83e\udd1d")
        + ended()
        + DONE
    )
    with Upstream() as upstream:
        upstream.queue(stream(*(bytes([byte]) for byte in whole)))
        text, _, problem = ask(upstream)

    assert (text, problem) == ("Grüße\u2028an Ana\x85🤝", None)


def test_what_no_store_takes_is_cleaned() -> None:
    """NUL goes, half a character becomes a replacement mark."""
    with Upstream() as upstream:
        upstream.queue(stream(said("a\0b\ud83dc"), ended(), DONE))

        assert "".join(ask(upstream)[0]) in ("ab\ufffdc", "ab\ufffd\ufffd\ufffdc")


def test_a_refusal_is_the_models_answer() -> None:
    """Some models put it beside the content."""
    with Upstream() as upstream:
        upstream.queue(stream(event({"choices": [{"delta": {"refusal": "I can't help with that."}}]}), ended(), DONE))

        assert ask(upstream)[0] == "I can't help with that."


# --- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.fault(36)
@pytest.mark.parametrize("figures", [(None, None), (-1, 5), (10**12, 2), (1.5, "7"), ("many", [])])
def test_absurd_figures_are_passed_on_unjudged(figures: tuple[object, object]) -> None:
    """Whether they are plausible is decided where the charge is made, and an absurd figure may not cost the answer."""
    with Upstream() as upstream:
        upstream.queue(answer("Fine.", usage=figures))
        text, events, problem = ask(upstream)

    assert (text, problem) == ("Fine.", None)
    assert Spent(*figures) in events


@pytest.mark.fault(36)
@pytest.mark.parametrize("usage", [None, "free", 7, []])
def test_figures_of_a_wrong_shape_cost_nothing(usage: object) -> None:
    """`usage` that is no table is no figures; null is none at all."""
    with Upstream() as upstream:
        upstream.queue(stream(said("Fine."), ended(), event({"choices": [], "usage": usage}), DONE))
        text, events, problem = ask(upstream)

    assert (text, problem, events[-1]) == ("Fine.", None, Ended("stop"))
    assert [got for got in events if isinstance(got, Spent)] == ([] if usage is None else [Spent(usage, usage)])


def test_figures_with_each_event_count_once() -> None:
    """Some servers send running totals: the last is the whole."""
    with Upstream() as upstream:
        upstream.queue(stream(said("a"), used(10, 1), said("b"), used(10, 2), ended(), DONE))

        assert [got for got in ask(upstream)[1] if isinstance(got, Spent)] == [Spent(10, 2)]


@pytest.mark.parametrize("tail", [(), (CUT,), (HANG,), (b"dat", CUT), (b"dat", HANG)])
def test_after_the_last_word_nothing_can_spoil_the_answer(tail: tuple[str | bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures, no [DONE], a dropped or a silent connection: the answer is whole all the same."""
    monkeypatch.setattr(wire, "TAIL_SECONDS", 0.2)
    with Upstream() as upstream:
        upstream.queue(stream(said("Whole."), ended(), *tail))

        assert ask(upstream) == ("Whole.", [Piece("Whole."), Ended("stop")], None)


# --- faults -----------------------------------------------------------------------------------------------------------

QUOTING = {"message": f"you wrote: {MARKER}", "type": "invalid_request_error", "code": None}
STATUSES = [
    (status(401, {**QUOTING, "code": "invalid_api_key"}), Problem.WRONG_KEY),
    (status(403), Problem.WRONG_KEY),
    (status(404, {**QUOTING, "code": "model_not_found"}), Problem.MODEL_GONE),
    (status(400, {**QUOTING, "code": "model_not_found"}), Problem.MODEL_GONE),
    (status(429), Problem.RATE_LIMITED),
    (status(429, {**QUOTING, "type": "insufficient_quota", "code": "insufficient_quota"}), Problem.NO_CREDIT),
    (status(402), Problem.NO_CREDIT),
    (status(400, {**QUOTING, "code": "context_length_exceeded"}), Problem.CONTEXT_FULL),
    (status(400, {**QUOTING, "type": "exceed_context_size_error", "code": 400}), Problem.CONTEXT_FULL),
    (status(400, {**QUOTING, "message": "This model's maximum context length is 8192 tokens"}), Problem.CONTEXT_FULL),
    (status(400, {**QUOTING, "code": "content_policy_violation"}), Problem.DECLINED),
    (status(400, QUOTING), Problem.INTERNAL),
    (status(422, body=b"[1]"), Problem.INTERNAL),
    (status(500), Problem.UNAVAILABLE),
    (status(503, body=b"<html>busy</html>"), Problem.UNAVAILABLE),
    (status(529, body=b""), Problem.UNAVAILABLE),
    (status(408), Problem.UNAVAILABLE),
]


@pytest.mark.fault(33)
@pytest.mark.parametrize(("reply", "problem"), STATUSES)
def test_each_status_is_its_own_problem(reply: Reply, problem: Problem) -> None:
    """Asked once each: trying again is decided by answering, within its deadline."""
    with Upstream() as upstream:
        upstream.queue(reply)
        text, _, failed = ask(upstream)

        assert failed is not None and (failed.problem, text) == (problem, "")
        assert len(upstream.asked) == 1


@pytest.mark.fault(33)
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": format_datetime(datetime.now(UTC) - timedelta(hours=1))}, 0.0),
    ],
)
def test_a_wish_to_wait_is_passed_on_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, milliseconds or a date; nonsense is no wish."""
    with Upstream() as upstream:
        upstream.queue(status(429, headers=headers))
        failed = ask(upstream)[2]

    assert failed is not None and failed.retryable
    assert failed.retry_after == seconds


def test_a_wish_to_wait_until_a_date_is_counted_from_now() -> None:
    """The date form, in the future."""
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=30))

    assert wire.retry_after_seconds({"retry-after": until}) == pytest.approx(30, abs=2)


GARBAGE = {
    "broken JSON": event(b'{"choices": [{"delta": {"cont'),
    "a bare word": event(b"hello"),
    "a list": event([1]),
    "null": event(None),
    "no choices": event({"id": "x"}),
    "choices null": event({"choices": None}),
    "choices of null": event({"choices": [None]}),
    "choices of text": event({"choices": "hello"}),
    "delta a list": event({"choices": [{"delta": [1]}]}),
    "content a number": event({"choices": [{"delta": {"content": 5}}]}),
    "content a table": event({"choices": [{"delta": {"content": {"a": 1}}}]}),
    "HTML": b"<html><body>Sign in to the hotel's network</body></html>\n",
    "an answer that is no stream": json.dumps({"choices": [{"message": {"content": "whole"}}]}).encode(),
    "deep nesting": event(b"[" * 100_000),
    "binary": bytes(range(128, 256)) + b"\n",
}


@pytest.mark.fault(35)
@pytest.mark.parametrize("before", ["", "Dear client,"])
@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_ends_the_answer_and_keeps_its_text(garbage: str, before: str) -> None:
    """What came before stays with the caller; the problem has a sentence and no traceback."""
    with Upstream() as upstream:
        upstream.queue(stream(*([said(before)] if before else []), GARBAGE[garbage], said(" more"), ended(), DONE))
        text, _, failed = ask(upstream)

    assert failed is not None and (failed.problem, text) == (Problem.GARBLED, before)


@pytest.mark.fault(35)
@pytest.mark.parametrize("last", [(), (CUT,), (said(" and more")[:20],), (said(" and more")[:20], CUT)])
def test_an_answer_without_an_end_was_cut(last: tuple[Step, ...]) -> None:
    """A clean end of the connection without [DONE] or a last word, a dropped one, and half a line are the same to the reader."""
    with Upstream() as upstream:
        upstream.queue(stream(said("Dear cli"), *last))
        text, _, failed = ask(upstream)

    assert failed is not None and (failed.problem, text) == (Problem.CUT, "Dear cli")


@pytest.mark.fault(35)
@pytest.mark.parametrize("damage", ["cut", "wrong"])
def test_a_compressed_stream_that_breaks_is_no_traceback(damage: str) -> None:
    """Servers that compress although they were asked not to, and break off or send nonsense."""
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(said("Dear client")) + packer.flush(zlib.Z_SYNC_FLUSH)
    rest = packer.compress(b"".join(said(f" {number}") for number in range(500))) + packer.flush()
    sent = [first, rest[: len(rest) // 2]] if damage == "cut" else [b"\x1f\x8b" + b"nonsense" * 20]
    with Upstream() as upstream:
        upstream.queue(Reply(sent, headers={"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}))
        text, _, failed = ask(upstream)

    assert failed is not None and failed.problem is (Problem.CUT if damage == "cut" else Problem.GARBLED)
    assert text.startswith("Dear client" if damage == "cut" else "")


@pytest.mark.fault(35)
def test_words_before_garbage_in_the_same_breath_are_kept() -> None:
    """Under load many events come as one piece of the wire: those before the bad one are the answer's, those after it are not."""
    with Upstream() as upstream:
        upstream.queue(Reply([said("Dear") + said(" client") + b"<html>\n\n" + said(" and more")]))
        text, _, failed = ask(upstream)

    assert text == "Dear client" and failed is not None and failed.problem is Problem.GARBLED


@pytest.mark.fault(35)
def test_what_is_no_http_is_no_answer() -> None:
    """Another program listens on that port."""
    with Upstream() as upstream:
        upstream.queue(Reply([], headers={"A name with blanks\0": "x"}))
        failed = ask(upstream)[2]

    assert failed is not None and failed.problem is Problem.GARBLED


@pytest.mark.fault(35)
def test_a_line_without_an_end_cannot_fill_the_memory() -> None:
    """It is given up at a megabyte, not when the server has had enough."""
    with Upstream() as upstream:
        upstream.queue(stream(said("Dear"), *([b"x" * 100_000] * 20), HANG))
        text, _, failed = ask(upstream, seconds=5.0)

    assert failed is not None and (failed.problem, text) == (Problem.GARBLED, "Dear")


@pytest.mark.parametrize(
    ("error", "problem"),
    [({"code": "rate_limit_exceeded"}, Problem.RATE_LIMITED), ({"type": "server_error"}, Problem.UNAVAILABLE), ("overloaded", Problem.UNAVAILABLE)],
)
def test_an_error_in_the_middle_of_a_stream_is_read(error: object, problem: Problem) -> None:
    """Providers send them as one more event, with status 200 long gone."""
    with Upstream() as upstream:
        upstream.queue(stream(said("Dear"), event({"error": error})))
        text, _, failed = ask(upstream)

    assert failed is not None and (failed.problem, text) == (problem, "Dear")


def test_a_server_that_is_gone_cannot_be_reached() -> None:
    """Refused connections are retryable and need no timeout."""

    async def run() -> ModelProblem:
        with Upstream() as upstream:
            found = OpenAISource(settings(upstream))
            await found.start()
        try:
            with pytest.raises(ModelProblem) as caught:
                assert found.model is not None
                [got async for got in found.model.stream(PROMPT)]
            return caught.value
        finally:
            await found.close()

    failed = asyncio.run(run())
    assert failed.problem is Problem.UNREACHABLE and failed.retryable


@pytest.mark.fault(34)
@pytest.mark.parametrize("reply", [stream(HANG), stream(said("Dear"), HANG), answer("word " * 500, gap=0.02)])
def test_breaking_off_ends_the_call_upstream(reply: Reply) -> None:
    """Before the first word, in a silence, between words: nobody pays for what nobody reads."""

    async def one(found: OpenAISource) -> None:
        assert found.model is not None
        model = found.model

        async def read() -> None:
            async for _ in model.stream(PROMPT):
                pass

        reading = asyncio.create_task(read())
        await until(lambda: bool(upstream.running))
        await asyncio.sleep(0.2)  # a few words
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: not upstream.running)

    with Upstream() as upstream:
        upstream.queue(reply)
        with_source(upstream, one)

        assert (upstream.running, upstream.broken_off) == (0, 1)


def test_closing_the_iterator_ends_the_call_upstream() -> None:
    """The port's promise: `aclose` is enough."""

    async def one(found: OpenAISource) -> None:
        assert found.model is not None
        events: Any = found.model.stream(PROMPT)
        await anext(events)
        await events.aclose()
        await until(lambda: not upstream.running)

    with Upstream(otherwise=stream(said("Dear"), HANG)) as upstream:
        with_source(upstream, one)

        assert (upstream.running, upstream.broken_off) == (0, 1)


def test_150_answers_at_once_need_not_wait_for_each_other() -> None:
    """The transport's own default is 100 connections: the 101st person would sit in a queue nobody sees."""

    async def one(found: OpenAISource) -> int:
        assert found.model is not None
        model = found.model

        async def begin() -> Any:
            events: Any = model.stream(PROMPT)
            await anext(events)
            return events

        begun = await asyncio.gather(*(begin() for _ in range(150)))
        running = upstream.running
        await asyncio.gather(*(events.aclose() for events in begun))
        return running

    with Upstream(otherwise=stream(said("Dear"), HANG)) as upstream:
        assert with_source(upstream, one) == 150


# --- what must not leak -----------------------------------------------------------------------------------------------


@pytest.mark.fault(95)
@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_the_key_does_not_follow_a_redirect(code: int) -> None:
    """Not for answers and not for the model list: the other server is never asked."""
    with Upstream() as elsewhere, Upstream() as upstream:
        away = Reply([b"moved"], code, {"Location": f"{elsewhere.address}/chat/completions"})
        upstream.queue(away)
        failed = ask(upstream)[2]
        upstream.models = away
        trouble = with_source(upstream, _trouble)

        assert failed is not None and failed.problem is Problem.GARBLED
        assert trouble is not None and "redirects" in trouble
        assert elsewhere.requests == []


@pytest.mark.fault(94)
@pytest.mark.parametrize("reply", [status(400, QUOTING), status(500, QUOTING), answer(MARKER), stream(said(MARKER), event(f'{{"{MARKER}'.encode()))])
def test_nobodys_words_reach_a_log_or_a_traceback(reply: Reply, caplog: pytest.LogCaptureFixture) -> None:
    """With everything at DEBUG, and with a provider that quotes what was asked."""
    caplog.set_level(logging.DEBUG)
    with Upstream() as upstream:
        upstream.queue(reply)
        failed = ask(upstream)[2]

    written = caplog.text + ("".join(traceback.format_exception(failed)) if failed else "")
    assert MARKER not in written and "sk-test" not in written
    assert {record.name.split(".")[0] for record in caplog.records} <= {"chatpro", "asyncio"}


# --- which model answers ----------------------------------------------------------------------------------------------


async def _trouble(found: OpenAISource) -> str | None:
    return found.trouble


async def _name(found: OpenAISource) -> str | None:
    return found.model and found.model.name


@pytest.mark.parametrize(
    ("offered", "preferred", "name"),
    [
        (["gpt-4.1", "gpt-4"], ("gpt-4", "gpt-4.1"), "gpt-4"),
        (["gpt-4.1", "gpt-6-luna"], ("gpt-4", "gpt-4.1", "gpt-6-luna"), "gpt-4.1"),
        (["ft:gpt-4.1:acme::1", "gpt-4"], ("ft:gpt-4.1:acme::1", "gpt-4"), "ft:gpt-4.1:acme::1"),
        (["gpt-4-turbo"], ("gpt-4", "gpt-4.1", "gpt-6-luna"), "gpt-4-turbo"),
        (["nomic-embed-text", "llama3.2:1b"], ("gpt-4", "gpt-4.1", "gpt-6-luna"), "llama3.2:1b"),
        (["llama3.2:1b"], ("gpt-4",), None),
        ([], ("gpt-4",), None),
    ],
)
def test_the_first_preference_that_is_offered_answers(offered: list[str], preferred: tuple[str, ...], name: str | None) -> None:
    """And on a server of one's own, with the preference left alone, the one that runs there."""
    with Upstream(models=offered) as upstream:
        assert with_source(upstream, _name, models=preferred) == name


def test_at_openai_itself_no_model_is_taken_that_nobody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator reads what is offered instead."""
    with Upstream(models=["o9-expensive"]) as upstream:
        monkeypatch.setattr(wire, "OPENAI_ADDRESS", upstream.address)
        trouble = with_source(upstream, _trouble, openai_base_url=None)

    assert trouble is not None and "gpt-4, gpt-4.1, gpt-6-luna" in trouble and "o9-expensive" in trouble


def test_a_fine_tuned_model_is_asked_by_its_own_name() -> None:
    """With its base's card."""
    with Upstream(models=["ft:gpt-6-luna:acme::1"]) as upstream:
        ask(upstream, models=("ft:gpt-6-luna:acme::1",))
        asked = upstream.asked[0].json

    assert asked["model"] == "ft:gpt-6-luna:acme::1" and "max_completion_tokens" in asked


@pytest.mark.parametrize(
    ("listing", "says"),
    [
        (status(401), "refuses the key"),
        (status(403), "refuses the key"),
        (status(500), "answers 500"),
        (Reply([b"<html>"]), "not one"),
        (Reply([b'{"data": 5}']), "not one"),
        (Reply([b"[" * 100_000]), "not one"),
        (stream(HANG), "can't be reached"),
    ],
)
def test_an_operator_reads_why_no_model_is_known(listing: Reply, says: str) -> None:
    """The start goes on without a model, and within the deadline for connecting."""
    with Upstream(models=listing) as upstream:
        began = time.monotonic()
        trouble = with_source(upstream, _trouble, connect_seconds=0.5)
        took = time.monotonic() - began

        assert trouble is not None and says in trouble and "sk-test" not in trouble
        assert with_source(upstream, _name, connect_seconds=0.5) is None
    assert took < 30  # what hangs would hang for an hour


def test_odd_entries_of_a_list_are_passed_over() -> None:
    """One wrong entry may not hide the others."""
    with Upstream(models=[{"id": 5}, {"name": "x"}, {"id": "a\nb"}, {"id": ""}, "gpt-4.1"]) as upstream:
        assert with_source(upstream, _name) == "gpt-4.1"


def test_a_server_without_a_list_is_used_unchecked() -> None:
    """Some compatible servers have none; the operator is told."""
    with Upstream(models=status(404)) as upstream:

        async def both(found: OpenAISource) -> tuple[str | None, str | None]:
            return await _name(found), found.trouble

        name, trouble = with_source(upstream, both, models=("my-model",))

    assert name == "my-model" and trouble is not None and "unchecked" in trouble


def test_a_provider_that_comes_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to restart the product."""
    monkeypatch.setattr(wire, "ASK_AGAIN_SECONDS", 0.05)
    with Upstream(models=status(503)) as upstream:

        async def later(found: OpenAISource) -> tuple[str | None, str | None, str | None]:
            before = await _name(found)
            upstream.models = ["gpt-4"]
            await until(lambda: found.model is not None)
            return before, await _name(found), found.trouble

        assert with_source(upstream, later) == (None, "gpt-4", None)


def test_a_model_that_is_listed_but_gone_gives_way_to_the_next() -> None:
    """Accounts are shown models that they may not use."""
    with Upstream(models=["gpt-4", "gpt-4.1"], otherwise=status(404)) as upstream:

        async def twice(found: OpenAISource) -> str | None:
            with pytest.raises(ModelProblem):
                assert found.model is not None
                [got async for got in found.model.stream(PROMPT)]
            await until(lambda: found.model is not None and found.model.name != "gpt-4")
            return await _name(found)

        assert with_source(upstream, twice) == "gpt-4.1"


def test_a_key_without_credit_is_the_operators_trouble_until_an_answer_comes() -> None:
    """The list says nothing about it."""
    with Upstream() as upstream:
        upstream.queue(status(429, {"code": "insufficient_quota"}))

        async def twice(found: OpenAISource) -> list[str | None]:
            told = []
            for _ in range(2):
                try:
                    assert found.model is not None
                    [got async for got in found.model.stream(PROMPT)]
                except ModelProblem:
                    pass
                told.append(found.trouble)
            return told

        first, second = with_source(upstream, twice)

    assert first is not None and "has run out" in first
    assert second is None


@pytest.mark.parametrize(("days", "warned"), [(59, True), (-3, True), (90, False)])
def test_a_coming_shutdown_is_announced(days: int, warned: bool) -> None:
    """From 60 days before, with the successor by name."""
    end = (datetime.now(UTC) + timedelta(days=days)).date().isoformat()
    with Upstream(models=[{"id": "gpt-4.1", "shutdown_date": end}]) as upstream:
        trouble = with_source(upstream, _trouble)

    assert (trouble is not None and end in trouble and "gpt-6-luna" in trouble) is warned


def test_a_key_that_can_be_none_is_said_to_be_wrong() -> None:
    """A line end copied along would break the request's head."""
    with Upstream() as upstream:
        trouble = with_source(upstream, _trouble, openai_api_key="sk-\nx")

        assert trouble is not None and "OPENAI_API_KEY" in trouble
        assert upstream.requests == []
