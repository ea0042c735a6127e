-- What deleting for good needs. Tables that hold text lose their keys: they are copied anew twice a day, sorted by account, and a key over
-- random ids made that copy, and each checkpoint, wait for seconds. Nothing is found by them: a person's rows lie together. Ids stay single all
-- the same: a message has the id of its answer or of its request, and those stand under keys in `answers`.

CREATE TABLE messages_unkeyed (
    account_id VARCHAR NOT NULL,
    id VARCHAR NOT NULL,
    chat_id VARCHAR NOT NULL,
    parent_id VARCHAR,
    sequence BIGINT NOT NULL,
    author VARCHAR NOT NULL CHECK (author IN ('freelancer', 'answer')),
    text VARCHAR NOT NULL,
    sent_at TIMESTAMP NOT NULL
);
INSERT INTO messages_unkeyed SELECT * FROM messages;
DROP TABLE messages;
ALTER TABLE messages_unkeyed RENAME TO messages;

CREATE TABLE titles_unkeyed (
    account_id VARCHAR NOT NULL,
    chat_id VARCHAR NOT NULL,
    sequence BIGINT NOT NULL,
    message_id VARCHAR,
    text VARCHAR NOT NULL,
    given_at TIMESTAMP NOT NULL
);
INSERT INTO titles_unkeyed SELECT * FROM titles;
DROP TABLE titles;
ALTER TABLE titles_unkeyed RENAME TO titles;

CREATE TABLE drafts_unkeyed (
    account_id VARCHAR NOT NULL,
    chat_id VARCHAR NOT NULL,
    sequence BIGINT NOT NULL,
    id VARCHAR NOT NULL,
    text VARCHAR NOT NULL,
    kept_at TIMESTAMP NOT NULL
);
INSERT INTO drafts_unkeyed SELECT * FROM drafts;
DROP TABLE drafts;
ALTER TABLE drafts_unkeyed RENAME TO drafts;

CREATE TABLE answer_parts_unkeyed (
    account_id VARCHAR NOT NULL,
    answer_id VARCHAR NOT NULL,
    position BIGINT NOT NULL,
    text VARCHAR NOT NULL,
    saved_at TIMESTAMP NOT NULL
);
INSERT INTO answer_parts_unkeyed SELECT * FROM answer_parts;
DROP TABLE answer_parts;
ALTER TABLE answer_parts_unkeyed RENAME TO answer_parts;

-- One row per finished purge: when, for whom, and how many rows went. `sorted` is how many messages it left in order. No text.
CREATE TABLE purges (
    sequence BIGINT PRIMARY KEY,
    began_at TIMESTAMP NOT NULL,
    ended_at TIMESTAMP NOT NULL,
    asked_by VARCHAR,
    messages BIGINT NOT NULL,
    titles BIGINT NOT NULL,
    drafts BIGINT NOT NULL,
    chats BIGINT NOT NULL,
    sorted BIGINT NOT NULL
);
