"""Settings: each wrong value refuses the start with a sentence that names it, and no mistake ever opens the door."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from chatpro import config
from chatpro.errors import ConfigError

GOOD_AUTH = {
    "redirect_uri": "https://chat.example/oauth2callback",
    "cookie_secret": "k7Jq-w2NfX0bV9sYt4LhRe8ZpUc3MdGa",  # made up
    "client_id": "chat",
    "client_secret": "made up, and long enough",
    "server_metadata_url": "https://id.example/.well-known/openid-configuration",
}
ADDRESSES = {"CHATPRO_TERMS_URL": "https://a.example/t", "CHATPRO_PRIVACY_URL": "https://a.example/p", "CHATPRO_PLAN_URL": "https://a.example/plan"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CHATPRO_PORT", "eighty"), ("CHATPRO_PORT", "0"), ("CHATPRO_PORT", "70000"), ("CHATPRO_ALLOWANCE_TOKENS", "-5"),
        ("CHATPRO_ANSWER_TOKENS", "1.5"), ("CHATPRO_FIRST_TOKEN_SECONDS", "soon"), ("CHATPRO_FIRST_TOKEN_SECONDS", "0"), ("CHATPRO_DEMO_OPEN", "maybe"),
        ("CHATPRO_TERMS_URL", "javascript:alert(1)"), ("OPENAI_BASE_URL", "file:///etc/passwd"), ("OPENAI_BASE_URL", "https://name:word@a.example/v1"),
        ("CHATPRO_MODELS", ","), ("CHATPRO_MODELS", "gpt 4"), ("CHATPRO_STORE_MEMORY", "lots"), ("CHATPRO_PRODUCT_NAME", "<b>"),
        ("CHATPRO_RETENTION_DAYS", "0"),
        ("CHATPRO_RETRIES", "99"), ("CHATPRO_NO_SUCH_SETTING", "1"), ("CHATPRO_SAMPLE_ACCOUNTS", "many"),
        ("CHATPRO_SAMPLE_FREELANCERS", "-1"), ("CHATPRO_CONSENT_VERSION", "two"),
    ],
)  # fmt: skip
@pytest.mark.fault(95)
def test_a_wrong_value_is_refused_by_name(name: str, value: str) -> None:
    """The sentence begins with the setting, so that the operator knows where to look."""
    with pytest.raises(ConfigError, match=rf"^{name} "):
        config.load({name: value})


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"CHATPRO_ANSWER_MIN_TOKENS": "2000"}, "CHATPRO_ANSWER_MIN_TOKENS"),
        ({"CHATPRO_ALLOWANCE_TOKENS": "5000"}, "CHATPRO_ALLOWANCE_TOKENS"),
        ({"CHATPRO_HISTORY_TOKENS": "9000"}, "CHATPRO_HISTORY_TOKENS"),
        ({"CHATPRO_RUNNING_TOTAL": "2"}, "CHATPRO_RUNNING_PER_ACCOUNT"),
    ],
)
def test_values_that_contradict_each_other_are_refused(env: dict[str, str], named: str) -> None:
    """Each may be right alone."""
    with pytest.raises(ConfigError, match=named):
        config.load(env)


def test_what_is_not_said_has_its_default() -> None:
    """Empty strings count as not said: compose files set them."""
    settings = config.load({"CHATPRO_PORT": "", "OPENAI_API_KEY": " "})

    assert (settings.port, settings.demo, settings.needs_local_model) == (8501, True, True)
    assert settings.models[0] == "gpt-4"


def test_keys_and_sign_in_secrets_are_never_printed_with_the_settings() -> None:
    """A settings object in a log or a traceback must not carry them."""
    settings = config.load({**ADDRESSES, "OPENAI_API_KEY": "made-up-key"}, {"auth": GOOD_AUTH})

    assert "made-up-key" not in repr(settings) and GOOD_AUTH["cookie_secret"] not in repr(settings)


@pytest.mark.fault(9)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "chat.example"])
def test_demo_mode_listens_on_loopback_unless_told_twice(host: str) -> None:
    """Once is not enough: a copied compose file must not let strangers in."""
    for env in ({}, {"CHATPRO_DEMO_OPEN": "yes"}, {"CHATPRO_DEMO_OPEN_CONFIRMED": "yes"}):
        with pytest.raises(ConfigError, match="CHATPRO_HOST"):
            config.load({"CHATPRO_HOST": host, **env})
    assert config.load({"CHATPRO_HOST": host, "CHATPRO_DEMO_OPEN": "yes", "CHATPRO_DEMO_OPEN_CONFIRMED": "yes"}).host == host


@pytest.mark.fault(10)
@pytest.mark.parametrize("missing", sorted(GOOD_AUTH))
def test_broken_sign_in_secrets_stop_the_start(missing: str) -> None:
    """They never lead to demo mode."""
    auth = {name: value for name, value in GOOD_AUTH.items() if name != missing}
    with pytest.raises(ConfigError, match=missing):
        config.load(ADDRESSES, {"auth": auth})
    with pytest.raises(ConfigError, match=r"\[auth\]"):
        config.load(ADDRESSES, {"auth": "yes"})


@pytest.mark.fault(11)
@pytest.mark.parametrize("secret", ["short", "x" * 32, "a" * 64, "abc" * 20])
def test_a_guessable_cookie_secret_is_refused(secret: str) -> None:
    """Too short, a known sample, or hardly any variety."""
    with pytest.raises(ConfigError, match="cookie_secret"):
        config.load(ADDRESSES, {"auth": {**GOOD_AUTH, "cookie_secret": secret}})


@pytest.mark.parametrize("missing", sorted(ADDRESSES))
def test_outside_demo_mode_the_terms_the_privacy_policy_and_the_plan_have_an_address(missing: str) -> None:
    """A consent that links nowhere is none."""
    with pytest.raises(ConfigError, match=missing):
        config.load({n: v for n, v in ADDRESSES.items() if n != missing}, {"auth": GOOD_AUTH})
    assert not config.load(ADDRESSES, {"auth": GOOD_AUTH}).demo


@pytest.mark.fault(10)
def test_a_secrets_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    """Its contents are not printed; a missing one is no fault."""
    broken = tmp_path / "secrets.toml"
    broken.write_text('[auth\nsecret = "made up"')

    with pytest.raises(ConfigError, match="no fallback to demo mode") as caught:
        config.read_secrets([broken])
    assert "made up" not in str(caught.value)
    assert config.read_secrets([tmp_path / "none.toml"]) == {}


def test_every_setting_stands_in_the_readme() -> None:
    """With its name; and the readme names none that doesn't exist."""
    readme = (config.ROOT / "README.md").read_text()
    named = set(re.findall(r"\b(?:CHATPRO|OPENAI)_[A-Z_]+\b", readme))

    assert set(config.VARIABLES) <= named
    assert named <= set(config.VARIABLES) | config.RESERVED
    assert {field for field, _ in config.VARIABLES.values()} <= {f.name for f in fields(config.Settings)}


def test_a_consent_never_names_openai_for_somebody_elses_server() -> None:
    """In demo mode the server is named by its address; outside of it the operator has to say who it is."""
    near, far = (config.load({"OPENAI_BASE_URL": url}) for url in ("http://127.0.0.1:11434/v1", "https://llm.example/v1"))

    assert (near.provider_name, near.provider_country, near.provider_keeps_days) == ("a model server on this computer", "this computer", None)
    assert far.provider_name == "the model server at llm.example"
    assert config.load({"OPENAI_BASE_URL": "https://api.openai.com/v1"}).provider_name == "OpenAI"
    with pytest.raises(ConfigError, match="CHATPRO_PROVIDER_NAME"):
        config.load({**ADDRESSES, "OPENAI_BASE_URL": "https://llm.example/v1"}, {"auth": GOOD_AUTH})


def test_a_yes_to_one_recipient_is_no_yes_to_another() -> None:
    """The local model, a key of OpenAI's, another country: each is another fact to agree to."""
    facts = {
        config.load(env).consent_facts
        for env in (
            {},
            {"OPENAI_API_KEY": "made-up"},
            {"OPENAI_API_KEY": "made-up", "CHATPRO_PROVIDER_COUNTRY": "Iceland"},
            {"OPENAI_BASE_URL": "https://a.example/v1"},
        )
    }

    assert len(facts) == 4
