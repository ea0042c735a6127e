-- Which of the warnings 75 and 95 a person has put away, and when: in a session's memory only, a warning came back with each reload and in each tab.

-- One row for a warning that was put away. The warning itself stays where it is; no text.
CREATE TABLE dismissals (
    account_id VARCHAR NOT NULL,
    cycle_starts_at TIMESTAMP NOT NULL,
    kind VARCHAR NOT NULL CHECK (kind IN ('75', '95')),
    allowance BIGINT NOT NULL,
    dismissed_at TIMESTAMP NOT NULL,
    PRIMARY KEY (account_id, cycle_starts_at, kind, allowance)
);
