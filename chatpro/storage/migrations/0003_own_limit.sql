-- What a person decides about their own allowance, as dated rows: a lower limit for one cycle, and which chats may take more of themselves along. No text in either.

-- A lower limit that a person set for one cycle, in tokens; null: lifted. The newest row of a cycle holds. `cycle_starts_at` is null where it was
-- set before the first message, so for the first cycle.
CREATE TABLE own_limits (
    account_id VARCHAR NOT NULL,
    sequence BIGINT NOT NULL,
    cycle_starts_at TIMESTAMP,
    tokens BIGINT CHECK (tokens >= 0),
    set_at TIMESTAMP NOT NULL,
    PRIMARY KEY (account_id, sequence)
);

-- Chats that may take more of their earlier conversation along ("remember more"). The newest row of a chat holds.
CREATE TABLE remembering (
    account_id VARCHAR NOT NULL,
    sequence BIGINT NOT NULL,
    chat_id VARCHAR NOT NULL,
    more BOOLEAN NOT NULL,
    said_at TIMESTAMP NOT NULL,
    PRIMARY KEY (account_id, sequence)
);
