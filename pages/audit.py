"""Audit: what auditors will read here. Until then one honest line.

The record itself is written from the first day; only its reading is still to come.
"""

from chatpro.web import gate, parts

account = gate.page("audit")

with parts.panel(account):
    pass
parts.head("Audit", "Here auditors will read who did what, when and why. Everything is recorded from the first day; there is no way to read it here yet.")
