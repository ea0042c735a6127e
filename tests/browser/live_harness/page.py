"""The harness's only page: what was answered, the answer being written, and a composer as the product has it."""

from types import SimpleNamespace

import streamlit as st
from live_harness import engine

from chatpro.web.live import hands, live_answer
from chatpro.web.markdown import safe_answer

engine.runs["full"] += 1
st.set_page_config(page_title="Harness", layout="centered")
if "fill" in st.query_params:
    st.markdown("\n\n".join(f"Paragraph {n} of an older talk." for n in range(60)))
st.session_state.channel = engine.sockets.renewed(st.session_state.get("channel"), engine.ACCOUNT, 1)
hands(channel=st.session_state.channel, chat=None, outbox=SimpleNamespace(name="harness", count=0, acted=0, back=[]), on_act=lambda act: None)


@st.fragment
def conversation() -> None:
    engine.runs["fragment"] += 1
    channel = st.session_state.channel = engine.sockets.renewed(st.session_state.get("channel"), engine.ACCOUNT, 1)
    running = None
    with st.container(key="conversation"):
        for answer_id in list(engine.order):
            answer = engine.answers[answer_id]
            with st.container(key=f"msg_answer_{answer_id}"):
                st.html('<h2 class="who"><i aria-hidden="true"></i>Chat Pro <small>GPT-4</small></h2>')
                if answer.done:
                    st.markdown(safe_answer(answer.text), anchors=False)
                else:
                    running = answer_id
                    engine.sockets.watch(channel, answer_id)
                    live_answer(channel=channel, answer_id=answer_id, writing="GPT-4", on_end=lambda: engine.ended.append("end"))
        if running is None:
            live_answer(channel=channel, answer_id=None, writing="GPT-4", on_end=lambda: engine.ended.append("end"))


conversation()
if st.button("Rerun", key="rerun"):
    pass
st.chat_input("Write to Chat Pro", key="composer")
