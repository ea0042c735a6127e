"""Every failure this product names, with the sentence a person reads.

Foreign errors (DuckDB, OpenAI, the network, the operating system) are translated into these once, at the edge
where they enter, and chained. Without one place for them a driver's words, a path or a key reach a visitor.
No sentence here holds text that a person wrote.
"""

from __future__ import annotations

from enum import StrEnum


class ChatProError(Exception):
    """Something went wrong that has a sentence. `str(error)` is safe to show to anybody."""


class ConfigError(ChatProError):
    """A setting is wrong; the sentence names it. The start is refused."""


class NotFound(ChatProError):
    """There is nothing of that id that the asker may reach: the same words whether it is foreign, purged or made up."""

    def __init__(self) -> None:
        super().__init__("Not found.")


class TooLate(ChatProError):
    """What could be taken back for a while can't be any more; the sentence says what holds now."""


class NotAllowed(ChatProError):
    """The account has no role for this verb. Pages are gated before, so a person should never read it."""

    def __init__(self) -> None:
        super().__init__("This account can't do that.")


class AccountClosed(ChatProError):
    """This sign-in is from before its account was closed. It makes no new one: nobody asked for that."""

    def __init__(self) -> None:
        super().__init__("This account was closed. Sign in anew to begin another one, with nothing in it.")


class NotSendable(ChatProError):
    """The text itself can't be sent (blank, beyond the character cap). Nothing was stored; the composer keeps it."""


class NotSearchable(ChatProError):
    """What was typed can't be looked for (nothing, one letter, too much); the sentence says what can."""


class Busy(ChatProError):
    """A bound is met (an answer runs in this chat, too many for this account, or the process is full). Not a refusal."""


class StoreUnavailable(ChatProError):
    """The store can't be read or written at the moment (disk full, closed, being reopened). Nothing was changed."""

    def __init__(self, detail: str = "Saving is not possible at the moment. Nothing was charged; your text is still here.") -> None:
        super().__init__(detail)


class StoreDamaged(ChatProError):
    """The store's file can't be trusted or opened. The start is refused; no fresh file is put in its place."""


class StoreInUse(ChatProError):
    """Another process holds the store; the sentence carries its process id."""

    def __init__(self, path: str, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"The store {path} is in use by {holder}. Stop that one first, or give this one a data folder of its own.")
        self.pid = pid


class StatementFailed(ChatProError):
    """A statement of a unit of work failed, so the whole unit is rolled back, even if the failure was caught on the way."""


class DuplicateKey(StatementFailed):
    """A row with this key is there already (DuckDB may say so only at commit)."""


class TextNotStorable(StatementFailed):
    """Text with a lone surrogate or a NUL: refused by every engine alike. `chats.clean_text` takes them out before."""


class ReadTooLong(ChatProError):
    """A read stayed open longer than its bound: it would keep deleted bytes alive and hold up checkpoints."""


class PurgeFailed(ChatProError):
    """A purge could not be done to its end; the old tables stay, and nobody can read what should have gone. The sentence is for an admin."""


class Problem(StrEnum):
    """Why the model gave no (whole) answer. Stored with the answer, so old values stay readable for ever."""

    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    UNREACHABLE = "unreachable"
    NO_FIRST_TOKEN = "no_first_token"
    SILENT = "silent"
    TOO_SLOW = "too_slow"
    WRONG_KEY = "wrong_key"
    NO_CREDIT = "no_credit"
    MODEL_GONE = "model_gone"
    CONTEXT_FULL = "context_full"
    DECLINED = "declined"
    GARBLED = "garbled"
    CUT = "cut"
    NO_MODEL = "no_model"
    INTERNAL = "internal"


PROBLEM_SENTENCES: dict[Problem, str] = {
    Problem.RATE_LIMITED: "{model} has too many requests right now.",
    Problem.UNAVAILABLE: "{model} is out of order at its provider right now.",
    Problem.UNREACHABLE: "{model} can't be reached from here: the connection to its provider failed.",
    Problem.NO_FIRST_TOKEN: "{model} did not begin to answer in time.",
    Problem.SILENT: "{model} stopped in the middle and said nothing more.",
    Problem.TOO_SLOW: "{model} took too long for the whole answer.",
    Problem.WRONG_KEY: "{model} refused this service's key. Whoever runs this service has to mend that.",
    Problem.NO_CREDIT: "This service's account with the provider of {model} has run out. Whoever runs this service has to mend that.",
    Problem.MODEL_GONE: "{model} is no longer offered by its provider. Whoever runs this service has to choose another.",
    Problem.CONTEXT_FULL: "{model} could not take a conversation of this length.",
    Problem.DECLINED: "The provider of {model} declined to answer this text.",
    Problem.GARBLED: "{model} sent something that is not an answer.",
    Problem.CUT: "The connection to {model} broke in the middle of the answer.",
    Problem.NO_MODEL: "No model is available right now.",
    Problem.INTERNAL: "The answer failed inside this service.",
}
"""What happened. Whether it was charged and what to do next is the page's to add: it knows."""


class ModelProblem(ChatProError):
    """A model call failed. `retry_after` in seconds is the provider's wish where it named one; `retryable` is ours."""

    RETRYABLE = frozenset({Problem.RATE_LIMITED, Problem.UNAVAILABLE, Problem.UNREACHABLE})

    def __init__(self, problem: Problem, model: str, *, retry_after: float | None = None) -> None:
        super().__init__(PROBLEM_SENTENCES[problem].format(model=model))
        self.problem = problem
        self.retry_after = retry_after

    @property
    def retryable(self) -> bool:
        """Trying the same call again may help, and no text has been paid for yet."""
        return self.problem in self.RETRYABLE
