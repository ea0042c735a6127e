"""Help: what this service does and keeps, in the figures that are in force now.

Every number comes from the settings or the model that answers; a figure written down twice would be wrong on one of the two pages.
"""

from html import escape

import streamlit as st

from chatpro.domain.accounts import Role
from chatpro.web import allowance, doors, gate, parts
from chatpro.web.parts import house

account = gate.page("help")


def draw() -> None:
    """Short sections, each a question somebody has."""
    s, sizes, model = house().settings, house().answering.sizes(), parts.model_title()
    allowance.frame(account)
    parts.head("Help", f"What {s.product_name} does with your words, and what it costs.")

    st.header("Who answers", anchor=False)
    if house().model.is_local:
        _text(f"{model}: a small local demo model on this computer, not GPT-4. It shows how the service works; its answers are short and often wrong.")
    elif house().model.model is not None:
        _text(f"{model}, run by {s.provider_name} in {s.provider_country}. It can be wrong: check what matters. Each answer names the model that wrote it.")
    else:
        _text("No model is available right now. What is written can be read; sending works again once one answers.")

    st.header("What it costs", anchor=False)
    _text(
        f"{s.plan_name} grants {s.allowance_tokens:,} tokens a month, unless your account page says otherwise. A token is about four letters. "
        "An answer costs the tokens of what is sent for it and of what is written. Each has a receipt, and the receipts of a month add up to the meter.",
        "The month begins on the day of your first message and renews on that day of each month, at midnight in the time zone you were in then. "
        "Where a month is too short, it renews on the month's last day. What is left then expires.",
        "An answer that fails without any text costs nothing. A stopped one costs what was sent and what was written.",
        "You are told once at 75 % and once at 95 %. Before a message would be the last of the month you are told too, and it waits for your yes.",
        "On your account page you can limit yourself to less for the month, and lift that at any time.",
    )

    st.header("How long a message can be", anchor=False)
    fits = max(0, sizes.prompt_cap - sizes.instructions)
    _text(
        f"At most {s.draft_chars:,} characters and {fits:,} tokens. Of the chat so far, the newest {sizes.history:,} tokens go along, fewer with a long one; "
        f"a chat that you tell to remember more takes up to {max(s.history_tokens, s.history_more_tokens):,} along, which costs them with each message. "
        f"An answer has at most {sizes.answer:,} tokens."
    )

    st.header("Finding something again", anchor=False)
    _text(
        "A search looks through all that you wrote and were answered, earlier versions too, and the titles of your chats. Capitals and accents don't matter; "
        'several words mean all of them in one message; "in quotes" means just these words one after the other. Every other sign means itself. '
        "What you search for is kept nowhere on our side."
    )

    st.header("What is used", anchor=False)
    used = ["Only what you type, and the chat it belongs to. Not your profile, your jobs, contracts or clients. Your words are not used to train a model."]
    if not house().model.is_local:
        kept = (
            "decides by itself how long it keeps what it was sent"
            if s.provider_keeps_days is None
            else f"may keep what it was sent for up to {parts.count_of(s.provider_keeps_days, 'day')}"
            if s.provider_keeps_days
            else "does not keep what it was sent"
        )
        used.append(f"{s.provider_name} {kept}.")
    _text(*used, "Nothing is sent before you said yes. You can take the yes back on your account page with one click.")

    st.header("How long it is kept", anchor=False)
    _text(
        f"Every message can be read for {s.retention_days} days after it was sent, then by nobody. A chat goes with its last message; the history says when. "
        "A chat that you delete is out of every list at once; for ten minutes it can be brought back. Receipts hold no text and stay.",
        "From all files of this service the text is taken out within 24 hours after that. Copies for emergencies are deleted in their own time.",
        "On your account page you can export everything, delete all chats, and close your account: then your name, mail and sign-in go as well. What was "
        "charged stays under a random number, and whoever comes back in the same month goes on with the same tokens used.",
    )

    st.header("Who can see what", anchor=False)
    st.html(
        "<ul><li><b>You</b> see your own chats, receipts and warnings, and nobody else's.</li>"
        "<li><b>Product managers</b> see how many tokens are used and how many warnings are given, never a word.</li>"
        "<li><b>Support staff, auditors and admins</b> can open no chat on these pages.</li>"
        "<li><b>Clients and third parties</b> see nothing: there is no role, no link and no share for them.</li></ul>"
    )
    if account.has(Role.FREELANCER) or s.terms_url:
        doors.links()


def _text(*paragraphs: str) -> None:
    st.html("".join(f"<p>{escape(text)}</p>" for text in paragraphs))


draw()
