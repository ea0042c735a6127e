"""Operations: whether the store, the model and the timers are well, for admins. Counts, ids and sentences; no text of anybody, no secrets.

Without it a store that fell behind its witness, a model about to be shut down or a counter that was wrong stand only in a log that
nobody reads.
"""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from chatpro.errors import ChatProError
from chatpro.services.housekeeping import Report
from chatpro.web import allowance, gate, parts
from chatpro.web.parts import house

account = gate.page("operations")

SHOWN_REPAIRS = 20


def draw() -> None:
    """What needs a person first; then the model, and what is known of the store as long as it can be read."""
    allowance.frame(account)
    parts.head("Operations", "How the parts of this service stand. No text of anybody is shown here.")
    report, wrong = None, []
    try:
        report = house().housekeeping.report(account)
        wrong = _wrong(report)
    except ChatProError as error:
        wrong.append(house().store.problem or str(error))
    if house().model.trouble:
        wrong.append(str(house().model.trouble))
    if wrong:
        parts.notice("95", "warning", "Something needs attention." if len(wrong) == 1 else f"{len(wrong)} things need attention.", " ".join(wrong))
    else:
        parts.note("Nothing needs attention.")
    _model()
    if report is not None:
        _store(report)
        _purge(report)
        _audit(report)


def _wrong(report: Report) -> list[str]:
    """A sentence for each thing that is not as it should be."""
    wrong = [sentence for sentence in (report.gap, report.problem, *report.troubles.values()) if sentence]
    if report.audit_first_broken is not None:
        wrong.append(f"The audit's chain does not hold at entry {report.audit_first_broken}: it was changed from outside this program.")
    if report.counters_that_differ:
        wrong.append(f"{parts.count_of(report.counters_that_differ, 'counter')} out of step with the ledger; the next reconcile puts that right.")
    if late := report.late_messages + report.late_chats:
        wrong.append(
            f"{late:,d} messages or deleted chats are in the files for more than a day past their time. Nobody can read them; the purge takes them out."
        )
    if report.pending_past_expiry:
        wrong.append(f"{parts.count_of(report.pending_past_expiry, 'reservation')} past the time; they are given back within a minute.")
    return wrong


def _model() -> None:
    st.header("Model", anchor=False)
    source = house().model
    where = "The local demo model, on this machine" if source.is_local else house().settings.provider_name
    st.html(parts.facts_html({"Answers now": parts.model_title() if source.model else "None", "From": where}))


def _store(report: Report) -> None:
    st.header("Store", anchor=False)
    st.html(
        parts.facts_html(
            {
                "Saving": "Not possible" if report.problem else "Works",
                "Against its witness": "Behind" if report.gap else "Whole",
                "Claimed beyond reservations, 30 days": f"{report.over_reserved[1]:,d} tokens in {parts.count_of(report.over_reserved[0], 'answer')}",
                "Reservations past their time": f"{report.pending_past_expiry:,d}",
                "Counters out of step": f"{report.counters_that_differ:,d}",
                "Counters put right": f"{len(report.repairs):,d}",
            }
        )
    )
    for repair in report.repairs[:SHOWN_REPAIRS]:
        parts.note(f"{_moment(repair.at)}, account {repair.account_id}, {repair.figures}")


def _purge(report: Report) -> None:
    """When text was last taken out of the files, and a way to have it done now."""
    st.header("Text past its days", anchor=False)
    last, runs = report.last_purge, report.purging
    facts = {"Now": f"{runs.doing.capitalize()}, {runs.share:.0%}" if runs else "Nothing runs; the next run is at most 12 hours after the last one"}
    if last is None:
        facts["Last run"] = "None yet"
    else:
        counts = ((last.messages, "message"), (last.titles, "title"), (last.drafts, "draft"), (last.chats, "chat"))
        facts["Last run"] = f"{_moment(last.ended_at)}, {(last.ended_at - last.began_at).total_seconds():,.0f} seconds"
        facts["Taken out by it"] = ", ".join(parts.count_of(count, word) for count, word in counts)
    st.html(parts.facts_html(facts))
    if st.button("Take out now what is past its days", key="purge_now", disabled=runs is not None):
        try:
            house().housekeeping.purge_now(account)
        except ChatProError as error:
            parts.notice("plain", "info", "That did not work.", str(error))
        else:
            st.rerun()


def _audit(report: Report) -> None:
    st.header("Audit", anchor=False)
    holds = "Holds" if report.audit_first_broken is None else f"Broken at entry {report.audit_first_broken}"
    st.html(parts.facts_html({"Newest entry": f"Number {report.audit_entries:,d}", "Entries checked": f"{report.audit_checked:,d}", "Chain": holds}))


def _moment(at: datetime) -> str:
    utc = at.astimezone(UTC)
    return f"{utc.day} {utc:%b %Y, %H:%M} UTC"


draw()
