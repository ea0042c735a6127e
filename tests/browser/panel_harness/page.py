"""The harness's pages: a side panel as the product has it, and beside it what the test needs to make it run again."""

import streamlit as st
from panel_harness import engine

from chatpro.web import panel

st.set_page_config(page_title="Harness", page_icon="chatpro/web/static/mark.svg", layout="centered", initial_sidebar_state=288)
engine.state["runs"] += 1


def turn_to(chat_id: str) -> None:
    engine.state["did"].append(["open", chat_id])
    st.query_params["chat"] = chat_id


def rename(chat_id: str, title: str) -> None:
    engine.take_time()
    st.session_state["said"] = None
    engine.rename(chat_id, title)


def delete(chat_id: str) -> None:
    engine.take_time()
    st.session_state["said"] = f"“{chat_id}” was deleted."
    engine.delete(chat_id)


def show_all() -> None:
    engine.state["did"].append(["all"])
    st.switch_page(history)


def search(words: str) -> None:
    engine.state["did"].append(["search", words])


def draw_chat() -> None:
    groups = [
        (heading, [panel.Row(c["id"], c["title"], c.get("note", ""), c.get("running", False), c.get("unread", False), c.get("soon", False)) for c in chats])
        for heading, chats in engine.groups.items()
        if chats
    ]
    open_id = st.query_params.get("chat")
    with st.sidebar:
        st.button("New chat", icon=":material/edit_square:", width="stretch", key="new_chat", on_click=lambda: st.query_params.clear())
        with st.container(key="panel_list"):
            panel.chat_list(
                groups,
                open_id=open_id,
                more=engine.state["more"],
                address="/",
                on_open=turn_to,
                on_rename=rename,
                on_delete=delete,
                on_all=show_all,
                on_search=search,
            )
        with st.container(key="panel_foot"):
            st.html('<p class="note">About 38 messages left</p>')
    st.title(open_id or "No chat")
    st.write(f"run {engine.state['runs']}")
    st.button("Rerun", key="rerun")
    if st.session_state.get("said"):
        st.write(st.session_state["said"])
        st.button("Undo", key="undo", on_click=engine.undo)


history = st.Page(lambda: st.title("All of them"), title="History", icon=":material/history:", url_path="history")
st.navigation([st.Page(draw_chat, title="Chat", icon=":material/chat_bubble:", url_path="chat", default=True), history]).run()
