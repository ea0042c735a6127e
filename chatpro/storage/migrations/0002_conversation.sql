-- What a conversation needs beside its words: which answers nobody has seen yet, and what was thought of them. No text in either.
-- And the largest allowance of a cycle on its counter row: asked of the reservations, it was a scan of all of them with each send.

-- Answers that ended while no page watched them, until their chat is opened.
CREATE TABLE unread_answers (
    account_id VARCHAR NOT NULL,
    answer_id VARCHAR PRIMARY KEY,
    chat_id VARCHAR NOT NULL
);
CREATE INDEX unread_answers_by_chat ON unread_answers (chat_id);

-- A reader's thumb for an answer: up, down, or taken back. The newest row of an answer holds. Counted by model and prompt version.
CREATE TABLE thumbs (
    account_id VARCHAR NOT NULL,
    sequence BIGINT PRIMARY KEY,
    answer_id VARCHAR NOT NULL,
    chat_id VARCHAR NOT NULL,
    thumb VARCHAR NOT NULL CHECK (thumb IN ('up', 'down', 'none')),
    model VARCHAR NOT NULL,
    prompt_version VARCHAR NOT NULL,
    given_at TIMESTAMP NOT NULL,
    day INTEGER NOT NULL
);
CREATE INDEX thumbs_by_chat ON thumbs (chat_id);

ALTER TABLE cycles ADD COLUMN highest BIGINT DEFAULT 0;
UPDATE cycles SET highest = coalesce((SELECT max(r.allowance) FROM reservations r WHERE r.account_id = cycles.account_id AND r.cycle_starts_at = cycles.starts_at), 0);
