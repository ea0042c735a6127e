"""Disputes: what support staff and approvers will do here. Until then one honest line.

Without the page its address would say that it does not exist, and nobody could tell a wrong role from a missing page.
"""

from chatpro.web import allowance, gate, parts

account = gate.page("disputes")

allowance.frame(account)
parts.head("Disputes", "Support staff will search the chats of a dispute here, each look on record. There is nothing yet: no chat can be read from this page.")
