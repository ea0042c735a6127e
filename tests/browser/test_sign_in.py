"""With a sign-in provider configured, on the real server: no sample accounts, no way in by address, and every page leads to sign-in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.serving import Server, refused
from tests.upstream import Upstream

SECRETS = """
[auth]
redirect_uri = "http://127.0.0.1:1/oauth2callback"
cookie_secret = "{secret}"
client_id = "chat"
client_secret = "made up, and long enough"
server_metadata_url = "http://127.0.0.1:1/.well-known/openid-configuration"
"""
ADDRESSES = {
    "CHATPRO_TERMS_URL": "https://a.example/t",
    "CHATPRO_PRIVACY_URL": "https://a.example/p",
    "CHATPRO_PLAN_URL": "https://a.example/plan",
    "CHATPRO_PROVIDER_NAME": "Example",
    "CHATPRO_PROVIDER_COUNTRY": "Iceland",
    "CHATPRO_PROVIDER_KEEPS_DAYS": "0",
}


def configured(folder: Path, secret: str = "k7Jq-w2NfX0bV9sYt4LhRe8ZpUc3MdGa") -> Path:  # made up
    (folder / ".streamlit").mkdir()
    (folder / ".streamlit" / "secrets.toml").write_text(SECRETS.format(secret=secret))
    return folder


@pytest.mark.fault(1, 10)
def test_every_address_leads_to_sign_in_and_none_to_a_sample_account(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    """`?as=` is nothing but a parameter here; the store is another one, in which nobody is made up."""
    with Upstream() as upstream, Server(configured(tmp_path), upstream.address, **ADDRESSES) as server:
        page = new_page()
        for address in ("/", "/?as=mara", "/history?as=ada", "/operations"):
            page.goto(server.url + address)
            page.get_by_role("button", name="Sign in").wait_for()
            assert page.get_by_text("sample account").count() == 0
            assert page.get_by_role("link", name="Terms").count() == 1
        assert not (tmp_path / "demo").exists() and (tmp_path / "var" / "chatpro.duckdb").exists()
        assert "chatpro_sample" not in str(server.get("/?as=mara")[1])


@pytest.mark.fault(1)
def test_a_page_that_is_not_ones_own_is_not_found_at_its_address_and_ones_own_are_a_click_away(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    """Streamlit's own "page does not exist" would open a window over somebody else's start page."""
    with Upstream() as upstream, Server(tmp_path, upstream.address) as server:
        page = new_page()
        for address in ("/?as=mara", "/disputes", "/operations"):
            page.goto(server.url + address)
            if address != "/?as=mara":
                expect(page.get_by_role("heading", name="Not found")).to_be_visible()
            expect(page.get_by_role("link", name="Disputes")).to_have_count(0)
            assert page.get_by_role("dialog").count() == 0
            page.get_by_role("link", name="History").click()
            expect(page.get_by_role("heading", name="History")).to_be_visible()
            assert page.evaluate("() => getComputedStyle(document.querySelector('.stLogo').parentElement, '::after').content") == '"Chat Pro"'
        page.go_back()
        expect(page.get_by_role("heading", name="Not found")).to_be_visible()


@pytest.mark.fault(10, 11)
def test_a_weak_cookie_secret_or_a_broken_file_stops_the_real_start(tmp_path: Path) -> None:
    """One sentence, exit code 2, no demo mode; the secret is not printed."""
    code, text = refused(configured(tmp_path, "x" * 32), **ADDRESSES)
    assert code == 2 and "cookie_secret" in text and "x" * 32 not in text

    (tmp_path / ".streamlit" / "secrets.toml").write_text("[auth")
    code, text = refused(tmp_path, **ADDRESSES)
    assert code == 2 and "no fallback to demo mode" in text
