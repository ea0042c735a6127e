"""Every setting, typed, in one place: read once at start from the environment and Streamlit's secrets, then never again.

Without this, a typo in a limit is found by the first freelancer it stops. A wrong value refuses the start with a
sentence that names the setting. Each default is argued where it stands; figures without another source are DESIGN choices
that `make trials` measures.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chatpro.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
KNOWN_SAMPLE_SECRETS = frozenset({"x" * 32, "change-me", "changeme", "secret", "your-cookie-secret", "A-LONG-RANDOM-STRING-OF-32-CHARACTERS"})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Settings:
    """What the program was told. Tokens, seconds and days are in the names or in the comment beside them."""

    # Where things are.
    data_dir: Path = ROOT / "data" / "var"
    demo_dir: Path = ROOT / "data" / "demo"
    weights_dir: Path = ROOT / "data" / "weights"
    host: str = "127.0.0.1"
    port: int = 8501

    # Who may enter. Demo mode is what remains when no [auth] secrets are there; broken ones never lead to it.
    auth: Mapping[str, Any] | None = field(default=None, repr=False)
    demo_open: bool = False
    demo_open_confirmed: bool = False
    agent_api_allowed: bool = False
    sample_accounts: int = 0
    # Made-up freelancers behind the figures of demo mode: enough for a page full of them, made within a second or two at the first start.
    sample_freelancers: int = 300
    roles_claim: str | None = None
    plan_claim: str | None = None

    # The product's face.
    product_name: str = "Chat Pro"
    plan_name: str = "Freelancer Plus"
    terms_url: str | None = None
    privacy_url: str | None = None
    plan_url: str | None = None
    terms_version: str = "1"

    # The consent: what a person is told before the first word leaves. The operator states where the provider is.
    consent_version: int = 1
    provider_name: str = "OpenAI"
    provider_country: str = "the United States"
    provider_keeps_days: int | None = 30  # None: whoever runs that server decides

    # The model.
    openai_api_key: str | None = field(default=None, repr=False)
    openai_base_url: str | None = None
    models: tuple[str, ...] = ("gpt-4", "gpt-4.1", "gpt-6-luna")

    # The allowance and one message, in tokens (docs/decisions.md, "Sizes"): `make trials` counts 100 messages for the account in the middle.
    allowance_tokens: int = 200_000
    history_tokens: int = 3_000
    # In a chat that is to remember more: half as much again. With instructions of some 350 it leaves a draft 1,150 of the 6,000 (a long one
    # still takes its place), and makes a message dearer by 0.75 % of the allowance at most. Below history_tokens it adds nothing.
    history_more_tokens: int = 4_500
    answer_tokens: int = 1_500
    answer_min_tokens: int = 500
    prompt_tokens: int = 6_000
    note_max_tokens: int = 0  # the project note comes with client work; until then nothing is kept free for it

    # Characters of one draft. 60,000 is more than twice what 6,000 tokens of English are: no draft that fits is cut, and a paste
    # of megabytes never reaches the tokenizer.
    draft_chars: int = 60_000

    # Answers at once. Three a person: more than anybody reads, few enough that one can't fill the process. 200 in all: 100 streams
    # took 0.6 of a core where this design was measured.
    running_per_account: int = 3
    running_total: int = 200

    # Sends beyond that wait in a line. Twenty a person: more is a script, and each is held with its text. 500 in all, some 30 MB at
    # the longest drafts. Longer than a minute nobody sits in front of a line; the text is back in the composer then.
    waiting_per_account: int = 20
    waiting_total: int = 500
    waiting_seconds: float = 60.0

    # Deadlines of one answer, in seconds.
    connect_seconds: float = 10.0
    first_token_seconds: float = 60.0  # reasoning models think; beyond a minute people have left
    silence_seconds: float = 30.0
    answer_seconds: float = 300.0  # 1,500 tokens at the slowest speed seen from a provider (5 a second)
    reservation_grace_seconds: float = 30.0
    shutdown_seconds: float = 10.0  # running answers may finish; process managers commonly kill after 30
    retries: int = 2
    retry_after_max_seconds: float = 20.0  # a provider that asks for more than that gets its sentence shown instead

    # Saving and keeping.
    save_seconds: float = 1.0
    retention_days: int = 90
    store_memory: str = "1GB"
    store_threads: int = 2

    @property
    def demo(self) -> bool:
        """Sample accounts instead of sign-in: on when no [auth] secrets are configured."""
        return self.auth is None

    @property
    def needs_local_model(self) -> bool:
        """Neither a key nor an address of a model is configured."""
        return not self.openai_api_key and not self.openai_base_url

    @property
    def consent_facts(self) -> str:
        """What a yes is a yes to, in short: who gets the words, where, for how long. A yes to other facts is none."""
        told = "local" if self.needs_local_model else f"{self.provider_name}|{self.provider_country}|{self.provider_keeps_days}"
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def closing_key(self) -> bytes:
        """With what the sign-ins of closed accounts are hashed (docs/decisions.md, "Closing"). Made from the cookie secret, which is in no copy of
        the data folder; demo mode has none, and nobody real."""
        secret = self.auth["cookie_secret"] if self.auth else "demo"
        return hmac.digest(str(secret).encode(), b"chatpro: sign-ins of closed accounts", "sha256")

    @property
    def store_dir(self) -> Path:
        """Demo mode has a store of its own, so that made-up people never stand beside real ones."""
        return self.demo_dir if self.demo else self.data_dir


def load(env: Mapping[str, str] | None = None, secrets: Mapping[str, Any] | None = None) -> Settings:
    """Read and check every setting. Raises ConfigError naming the first wrong one, before anything is opened."""
    env = os.environ if env is None else env
    secrets = secrets or {}
    unknown = sorted(name for name in env if name.startswith("CHATPRO_") and name not in VARIABLES and name not in RESERVED)
    if unknown:
        raise ConfigError(f"{unknown[0]} is not a setting of this program. The settings are listed in README.md, under Configuration.")
    given: dict[str, Any] = {}
    for variable, (name, parse) in VARIABLES.items():
        raw = env.get(variable, secrets.get(variable))
        if raw is None or str(raw).strip() == "":
            continue
        try:
            given[name] = parse(str(raw).strip())
        except ValueError as error:
            raise ConfigError(f"{variable} is wrong: {error}") from error
    settings = _about_the_provider(Settings(**given, auth=_auth(secrets)), given)
    _check(settings)
    return settings


def read_secrets(files: Iterable[Path] | None = None) -> dict[str, Any]:
    """What Streamlit's secrets files hold (the user's, then the project's over it). Raises ConfigError for one that can't be read."""
    found: dict[str, Any] = {}
    for file in files if files is not None else (Path.home() / ".streamlit" / "secrets.toml", ROOT / ".streamlit" / "secrets.toml"):
        try:
            found |= tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(
                f"The secrets file {file.name} in {file.parent.name} can't be read. There is no fallback to demo mode; mend it or remove it."
            ) from error
    return found


def _auth(secrets: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The [auth] table if there is one. A broken one stops the start: falling back to demo mode would open the door."""
    if "auth" not in secrets:
        return None
    auth = secrets["auth"]
    if not isinstance(auth, Mapping):
        raise ConfigError("[auth] in the secrets must be a table with redirect_uri, cookie_secret and a provider.")
    for name in ("redirect_uri", "cookie_secret"):
        if not isinstance(auth.get(name), str) or not auth[name]:
            raise ConfigError(f"[auth] in the secrets lacks {name}. Sign-in can't work without it, and there is no fallback to demo mode.")
    secret = auth["cookie_secret"]
    if len(secret.encode()) < 32 or secret in KNOWN_SAMPLE_SECRETS or len(set(secret)) < 8:
        how = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))' makes one"
        raise ConfigError(f"[auth] cookie_secret must be at least 32 bytes of randomness, not a sample value: {how}.")
    provider = next((t for t in auth.values() if isinstance(t, Mapping)), auth)
    for name in ("client_id", "client_secret", "server_metadata_url"):
        if not isinstance(provider.get(name), str) or not provider[name]:
            raise ConfigError(f"[auth] in the secrets lacks {name} of the provider. Sign-in can't work without it, and there is no fallback to demo mode.")
    return dict(auth)


def _about_the_provider(s: Settings, given: Mapping[str, Any]) -> Settings:
    """The consent must name who really gets the words: with another server than OpenAI's, its defaults would be a lie."""
    host = urlsplit(s.openai_base_url or "").hostname
    if host in (None, "api.openai.com") or {"provider_name", "provider_country", "provider_keeps_days"} <= given.keys():
        return s
    if not s.demo:
        raise ConfigError(
            "OPENAI_BASE_URL is not OpenAI's address, so the consent has to say whose it is: set CHATPRO_PROVIDER_NAME, CHATPRO_PROVIDER_COUNTRY and "
            "CHATPRO_PROVIDER_KEEPS_DAYS."
        )
    here = host in LOOPBACK
    unsaid: dict[str, Any] = {
        "provider_name": "a model server on this computer" if here else f"the model server at {host}",
        "provider_country": "this computer" if here else "the place where that server stands",
        "provider_keeps_days": None,
    }
    return replace(s, **{name: value for name, value in unsaid.items() if name not in given})


def _check(s: Settings) -> None:
    """What no single setting can tell: how they stand to each other."""
    if s.demo and s.host not in LOOPBACK and not (s.demo_open and s.demo_open_confirmed):
        raise ConfigError(
            f"CHATPRO_HOST is {s.host or 'every address'}, but this is demo mode, where nobody is asked for a password. Set up sign-in, listen on 127.0.0.1, "
            "or say twice that strangers may come in: CHATPRO_DEMO_OPEN=yes and CHATPRO_DEMO_OPEN_CONFIRMED=yes."
        )
    if not s.demo:
        for name, value in (("CHATPRO_TERMS_URL", s.terms_url), ("CHATPRO_PRIVACY_URL", s.privacy_url), ("CHATPRO_PLAN_URL", s.plan_url)):
            if value is None:
                raise ConfigError(f"{name} is not set. Outside demo mode people must be able to read the terms, the privacy policy and what the plan is.")
        if s.sample_accounts:
            raise ConfigError("CHATPRO_SAMPLE_ACCOUNTS works in demo mode only: sample people never stand beside real ones.")
    if s.answer_min_tokens > s.answer_tokens:
        raise ConfigError("CHATPRO_ANSWER_MIN_TOKENS is larger than CHATPRO_ANSWER_TOKENS: the shortest answer can't be longer than the longest.")
    if s.prompt_tokens + s.answer_tokens > s.allowance_tokens:
        raise ConfigError("CHATPRO_ALLOWANCE_TOKENS is smaller than one message (CHATPRO_PROMPT_TOKENS and CHATPRO_ANSWER_TOKENS): nobody could send anything.")
    if s.history_tokens > s.prompt_tokens:
        raise ConfigError("CHATPRO_HISTORY_TOKENS is larger than CHATPRO_PROMPT_TOKENS, of which it is a part.")
    if s.waiting_seconds >= s.answer_seconds:
        raise ConfigError("CHATPRO_WAITING_SECONDS is not below CHATPRO_ANSWER_SECONDS, in whose time a send waits.")
    if s.running_per_account > s.running_total:
        raise ConfigError("CHATPRO_RUNNING_PER_ACCOUNT is larger than CHATPRO_RUNNING_TOTAL.")


def _number(low: int, high: int, unit: str = "") -> Callable[[str], int]:
    def parse(raw: str) -> int:
        try:
            value = int(raw.replace("_", "").replace(",", ""))
        except ValueError:
            raise ValueError(f"{raw!r} is not a whole number{unit and ' of ' + unit}.") from None
        if not low <= value <= high:
            raise ValueError(f"{value} is not between {low} and {high}{unit and ' ' + unit}.")
        return value

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(raw: str) -> float:
        try:
            value = float(raw)
        except ValueError:
            raise ValueError(f"{raw!r} is not a number of seconds.") from None
        if not low <= value <= high:
            raise ValueError(f"{raw} is not between {low:g} and {high:g} seconds.")
        return value

    return parse


def _yes(raw: str) -> bool:
    if raw.lower() in ("yes", "true", "1", "on"):
        return True
    if raw.lower() in ("no", "false", "0", "off"):
        return False
    raise ValueError(f"{raw!r} is neither yes nor no.")


def _web_address(raw: str) -> str:
    parts = urlsplit(raw)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{raw!r} is not an address that begins with http:// or https://.")
    return raw


def _upstream(raw: str) -> str:
    address = _web_address(raw)
    if urlsplit(address).username or urlsplit(address).password:
        raise ValueError("a name or password in the address would end up in logs. Use OPENAI_API_KEY.")
    return address.rstrip("/")


def _names(raw: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in raw.split(",") if part.strip())
    if not names or any(" " in name for name in names):
        raise ValueError(f"{raw!r} is not a list of model ids separated by commas.")
    return names


def _memory(raw: str) -> str:
    if not raw[:-2].isdigit() or raw[-2:] not in ("MB", "GB"):
        raise ValueError(f"{raw!r} is not an amount of memory such as 1GB or 512MB.")
    return raw


def _words(raw: str) -> str:
    if len(raw) > 80 or not raw.isprintable() or set(raw) & set("<>"):
        raise ValueError("it must be one line of at most 80 printable characters without < and >.")
    return raw


VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "CHATPRO_DATA_DIR": ("data_dir", Path),
    "CHATPRO_DEMO_DIR": ("demo_dir", Path),
    "CHATPRO_WEIGHTS_DIR": ("weights_dir", Path),
    "CHATPRO_HOST": ("host", str),
    "CHATPRO_PORT": ("port", _number(1, 65_535)),
    "CHATPRO_DEMO_OPEN": ("demo_open", _yes),
    "CHATPRO_DEMO_OPEN_CONFIRMED": ("demo_open_confirmed", _yes),
    "CHATPRO_AGENT_API_ALLOWED": ("agent_api_allowed", _yes),
    "CHATPRO_SAMPLE_ACCOUNTS": ("sample_accounts", _number(0, 10_000, "accounts")),
    "CHATPRO_SAMPLE_FREELANCERS": ("sample_freelancers", _number(0, 10_000, "freelancers")),
    "CHATPRO_ROLES_CLAIM": ("roles_claim", _words),
    "CHATPRO_PLAN_CLAIM": ("plan_claim", _words),
    "CHATPRO_PRODUCT_NAME": ("product_name", _words),
    "CHATPRO_PLAN_NAME": ("plan_name", _words),
    "CHATPRO_TERMS_URL": ("terms_url", _web_address),
    "CHATPRO_PRIVACY_URL": ("privacy_url", _web_address),
    "CHATPRO_PLAN_URL": ("plan_url", _web_address),
    "CHATPRO_TERMS_VERSION": ("terms_version", _words),
    "CHATPRO_CONSENT_VERSION": ("consent_version", _number(1, 1_000_000)),
    "CHATPRO_PROVIDER_NAME": ("provider_name", _words),
    "CHATPRO_PROVIDER_COUNTRY": ("provider_country", _words),
    "CHATPRO_PROVIDER_KEEPS_DAYS": ("provider_keeps_days", _number(0, 3_650, "days")),
    "OPENAI_API_KEY": ("openai_api_key", str),
    "OPENAI_BASE_URL": ("openai_base_url", _upstream),
    "CHATPRO_MODELS": ("models", _names),
    "CHATPRO_ALLOWANCE_TOKENS": ("allowance_tokens", _number(1_000, 10_000_000_000, "tokens")),
    "CHATPRO_HISTORY_TOKENS": ("history_tokens", _number(0, 1_000_000, "tokens")),
    "CHATPRO_HISTORY_MORE_TOKENS": ("history_more_tokens", _number(0, 1_000_000, "tokens")),
    "CHATPRO_ANSWER_TOKENS": ("answer_tokens", _number(50, 100_000, "tokens")),
    "CHATPRO_ANSWER_MIN_TOKENS": ("answer_min_tokens", _number(50, 100_000, "tokens")),
    "CHATPRO_PROMPT_TOKENS": ("prompt_tokens", _number(500, 1_000_000, "tokens")),
    "CHATPRO_DRAFT_CHARS": ("draft_chars", _number(100, 1_000_000, "characters")),
    "CHATPRO_RUNNING_PER_ACCOUNT": ("running_per_account", _number(1, 1_000)),
    "CHATPRO_RUNNING_TOTAL": ("running_total", _number(1, 10_000)),
    "CHATPRO_WAITING_PER_ACCOUNT": ("waiting_per_account", _number(0, 1_000)),
    "CHATPRO_WAITING_TOTAL": ("waiting_total", _number(0, 10_000)),
    "CHATPRO_WAITING_SECONDS": ("waiting_seconds", _seconds(1, 600)),
    "CHATPRO_CONNECT_SECONDS": ("connect_seconds", _seconds(0.1, 120)),
    "CHATPRO_FIRST_TOKEN_SECONDS": ("first_token_seconds", _seconds(0.1, 600)),
    "CHATPRO_SILENCE_SECONDS": ("silence_seconds", _seconds(0.1, 600)),
    "CHATPRO_ANSWER_SECONDS": ("answer_seconds", _seconds(0.5, 3_600)),
    "CHATPRO_SHUTDOWN_SECONDS": ("shutdown_seconds", _seconds(0, 600)),
    "CHATPRO_RETRIES": ("retries", _number(0, 10)),
    "CHATPRO_RETENTION_DAYS": ("retention_days", _number(1, 3_650, "days")),
    "CHATPRO_STORE_MEMORY": ("store_memory", _memory),
    "CHATPRO_STORE_THREADS": ("store_threads", _number(1, 64)),
}
"""Variable → (field, reader). The environment wins over a key of the same name in the secrets file."""

RESERVED = frozenset({"CHATPRO_TEST_FAULTS"})
"""Read elsewhere, for tests alone (chatpro/storage/migrate.py says where one may end the process)."""

assert {name for name, _ in VARIABLES.values()} <= {f.name for f in fields(Settings)}
