"""Audit: what auditors will read here. Until then one honest line.

The record itself is written from the first day; only its reading is still to come.
"""

from chatpro.web import allowance, gate, parts

account = gate.page("audit")

allowance.frame(account)
parts.head(
    "Audit",
    "Here auditors will read who did what, when and why. Accounts made, roles, consents, deleted and restored chats are recorded "
    "from the first day; they can't be read here yet.",
)
