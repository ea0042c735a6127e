"""Chat: the page freelancers spend their day on."""

from chatpro.web import chatroom, gate

account = gate.page("chat")
chatroom.draw(account)
