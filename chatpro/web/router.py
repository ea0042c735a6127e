"""The main script: it runs before each page and says which pages there are and which of them the side panel shows.

It opens nothing to anybody: every page has its gate. But an address has to be known here before it can lead to a gate, so all
pages are known to whoever is signed out, and to others those that they may open and the one that they ask for; otherwise a link
to a chat ends at "page does not exist" instead of at sign-in. Not all to everybody: the list goes over the wire with each run.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import streamlit as st

from chatpro.bootstrap import house
from chatpro.domain.accounts import Account
from chatpro.web import gate, places

MARK = "/app/static/mark.svg"  # by its address: as a picture it was sent again with each run, 600 bytes twice


def run() -> None:
    """One script run: the frame of the page, then the page."""
    name = house().settings.product_name
    st.set_page_config(
        page_title=name,
        page_icon=MARK,
        layout="centered",
        initial_sidebar_state=288,
        menu_items={"About": f"{name} is a chat with an AI model for freelancers. The help page says what is used, and who can see what."},
    )
    account = gate.who()
    if account is not None:
        _logo()
    st.navigation(_pages(account), position="hidden" if account is None else "sidebar").run()


def _pages(account: Account | None) -> list[st.Page]:
    """Every page under its own address, and the first one under `/` too. One of its two addresses is shown: the one the person is at."""
    first = places.first_of(account)
    here = urlsplit(st.context.url or "").path.rstrip("/")
    at_own_address = here.endswith(f"/{first}")
    asked: set[str] = st.session_state.setdefault("asked_for", set())  # kept, so that Back leads there again
    pages = []
    for name, place in places.PLACES.items():
        shown = account is not None and account.may_open(name)
        if here.endswith(f"/{name}"):
            asked.add(name)
        if account is not None and not shown and name not in asked:
            continue
        if name == first:
            pages.append(_page(name, place, shown=shown and not at_own_address, default=True))
            pages.append(_page(name, place, shown=shown and at_own_address))
        else:
            pages.append(_page(name, place, shown=shown))
    return pages


def _page(name: str, place: places.Place, *, shown: bool, default: bool = False) -> st.Page:
    return st.Page(
        places.file_of(name),
        title=place.title,
        icon=f":material/{place.icon}:" if shown else None,
        url_path="" if default else name,
        default=default,
        visibility="visible" if shown else "hidden",
    )


def _logo() -> None:
    """The mark. The name beside it is written by looks.css: as a picture it was sent again with each run, six kilobytes of paths."""
    st.logo(MARK, size="medium")


if __name__ == "__main__":
    run()
