-- The first shape of the store. Each table says what it is for; tables that hold text a person wrote say TEXT in capitals in their sentence.
-- No foreign keys: purged tables are rewritten apart from each other (docs/decisions.md, "Storage"). Instants are UTC.

-- One signed-in person. Name and mail are labels; (issuer, subject) is who it is.
CREATE TABLE accounts (
    id VARCHAR PRIMARY KEY,
    issuer VARCHAR NOT NULL,
    subject VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    email VARCHAR,
    zone VARCHAR NOT NULL,
    sample BOOLEAN NOT NULL,
    created_at TIMESTAMP NOT NULL,
    UNIQUE (issuer, subject)
);

-- What changes about an account without being its name: written anew, the newest row holds. `kind`: zone, epoch (signed out everywhere), closed, claims (when the provider's claims were last taken over).
CREATE TABLE account_changes (
    account_id VARCHAR NOT NULL,
    sequence BIGINT NOT NULL,
    kind VARCHAR NOT NULL CHECK (kind IN ('zone', 'epoch', 'closed', 'claims')),
    value VARCHAR NOT NULL,
    changed_at TIMESTAMP NOT NULL,
    PRIMARY KEY (account_id, sequence)
);

-- Roles an account has now.
CREATE TABLE roles (
    account_id VARCHAR NOT NULL,
    role VARCHAR NOT NULL CHECK (role IN ('freelancer', 'analyst', 'support', 'approver', 'auditor', 'admin')),
    PRIMARY KEY (account_id, role)
);

-- What an account is granted, dated; the newest row (by sequence) that has begun is in force.
CREATE TABLE entitlements (
    account_id VARCHAR NOT NULL,
    sequence BIGINT NOT NULL,
    plan VARCHAR NOT NULL,
    allowance BIGINT NOT NULL CHECK (allowance >= 0),
    starts_at TIMESTAMP NOT NULL,
    ends_at TIMESTAMP,
    recorded_at TIMESTAMP NOT NULL,
    PRIMARY KEY (account_id, sequence)
);

-- A dated, versioned yes or no to AI; the newest row holds. `facts`: a digest of who gets the words, where and for how long; empty for made-up people.
CREATE TABLE consents (
    account_id VARCHAR NOT NULL,
    sequence BIGINT NOT NULL,
    version INTEGER NOT NULL,
    given BOOLEAN NOT NULL,
    facts VARCHAR NOT NULL,
    said_at TIMESTAMP NOT NULL,
    PRIMARY KEY (account_id, sequence)
);

-- The day of first use, stored once and never changed: every cycle is computed from it.
CREATE TABLE anchors (
    account_id VARCHAR PRIMARY KEY,
    day DATE NOT NULL,
    zone VARCHAR NOT NULL,
    set_at TIMESTAMP NOT NULL
);

-- A conversation, without any text. Deleting marks the row, which every read checks.
CREATE TABLE chats (
    account_id VARCHAR NOT NULL,
    id VARCHAR PRIMARY KEY,
    created_at TIMESTAMP NOT NULL,
    deleted_at TIMESTAMP
);

-- Titles: TEXT. Written once each, the newest holds. `message_id` is the message an automatic title came from, null for one typed by hand.
CREATE TABLE titles (
    account_id VARCHAR NOT NULL,
    chat_id VARCHAR NOT NULL,
    sequence BIGINT NOT NULL,
    message_id VARCHAR,
    text VARCHAR NOT NULL,
    given_at TIMESTAMP NOT NULL,
    PRIMARY KEY (chat_id, sequence)
);

-- What was written, by the freelancer and by the model: TEXT. Written once; an edit is another message with the same parent.
CREATE TABLE messages (
    account_id VARCHAR NOT NULL,
    id VARCHAR PRIMARY KEY,
    chat_id VARCHAR NOT NULL,
    parent_id VARCHAR,
    sequence BIGINT NOT NULL,
    author VARCHAR NOT NULL CHECK (author IN ('freelancer', 'answer')),
    text VARCHAR NOT NULL,
    sent_at TIMESTAMP NOT NULL
);

-- One call of the model for one message: state and facts, no text. Its text is the message of the same id once it has ended, its parts until then.
CREATE TABLE answers (
    account_id VARCHAR NOT NULL,
    id VARCHAR PRIMARY KEY,
    chat_id VARCHAR NOT NULL,
    question_id VARCHAR NOT NULL,
    request_id VARCHAR NOT NULL,
    attempt INTEGER NOT NULL,
    reservation_id VARCHAR NOT NULL,
    sequence BIGINT NOT NULL,
    state VARCHAR NOT NULL CHECK (state IN ('running', 'finished', 'length', 'stopped', 'cut', 'interrupted', 'failed')),
    problem VARCHAR,
    model VARCHAR NOT NULL,
    prompt_version VARCHAR NOT NULL,
    left_out INTEGER NOT NULL,
    shortened BOOLEAN NOT NULL,
    started_at TIMESTAMP NOT NULL,
    ended_at TIMESTAMP,
    UNIQUE (request_id, attempt)
);

-- What running answers added since the last save: TEXT. Folded into one message when the answer ends.
CREATE TABLE answer_parts (
    account_id VARCHAR NOT NULL,
    answer_id VARCHAR NOT NULL,
    position BIGINT NOT NULL,
    text VARCHAR NOT NULL,
    saved_at TIMESTAMP NOT NULL,
    PRIMARY KEY (answer_id, position)
);

-- Text that was refused or failed, one per chat, kept for its author: TEXT. The newest row holds; an empty one says that it was used.
CREATE TABLE drafts (
    account_id VARCHAR NOT NULL,
    chat_id VARCHAR NOT NULL,
    sequence BIGINT NOT NULL,
    id VARCHAR NOT NULL,
    text VARCHAR NOT NULL,
    kept_at TIMESTAMP NOT NULL,
    PRIMARY KEY (chat_id, sequence)
);

-- The gate: one guarded counter row per account and cycle. Rebuilt from usage_entries and reservations at any time.
CREATE TABLE cycles (
    account_id VARCHAR NOT NULL,
    starts_at TIMESTAMP NOT NULL,
    ends_at TIMESTAMP NOT NULL,
    used BIGINT NOT NULL CHECK (used >= 0),
    reserved BIGINT NOT NULL CHECK (reserved >= 0),
    PRIMARY KEY (account_id, starts_at)
);

-- Tokens set aside before the model is called. Resolved exactly once, whoever comes first.
CREATE TABLE reservations (
    account_id VARCHAR NOT NULL,
    id VARCHAR PRIMARY KEY,
    request_id VARCHAR NOT NULL,
    cycle_starts_at TIMESTAMP NOT NULL,
    allowance BIGINT NOT NULL,
    kind VARCHAR NOT NULL CHECK (kind IN ('ordinary', 'last')),
    tokens BIGINT NOT NULL CHECK (tokens > 0),
    prompt_tokens BIGINT NOT NULL,
    resent_tokens BIGINT NOT NULL,
    answer_limit BIGINT NOT NULL,
    state VARCHAR NOT NULL CHECK (state IN ('pending', 'settled', 'released', 'expired')),
    made_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP NOT NULL,
    resolved_at TIMESTAMP
);

-- The ledger: one row per model call, also for a failed one (0 tokens). No text. Never edited, never deleted.
CREATE TABLE usage_entries (
    account_id VARCHAR NOT NULL,
    sequence BIGINT PRIMARY KEY,
    answer_id VARCHAR NOT NULL,
    reservation_id VARCHAR NOT NULL,
    cycle_starts_at TIMESTAMP NOT NULL,
    plan VARCHAR NOT NULL,
    tokens_in BIGINT NOT NULL CHECK (tokens_in >= 0),
    tokens_out BIGINT NOT NULL CHECK (tokens_out >= 0),
    tokens_resent BIGINT NOT NULL CHECK (tokens_resent >= 0),
    counted VARCHAR NOT NULL CHECK (counted IN ('measured', 'estimated')),
    over_reserved BIGINT NOT NULL CHECK (over_reserved >= 0),
    model VARCHAR NOT NULL,
    prompt_version VARCHAR NOT NULL,
    first_token_ms BIGINT,
    whole_ms BIGINT NOT NULL,
    outcome VARCHAR NOT NULL,
    settled_at TIMESTAMP NOT NULL,
    day INTEGER NOT NULL
);

-- One row per account, cycle, kind and figure of the allowance in force; none withdrawn, none repeated.
CREATE TABLE warnings (
    account_id VARCHAR NOT NULL,
    cycle_starts_at TIMESTAMP NOT NULL,
    kind VARCHAR NOT NULL CHECK (kind IN ('75', '95', 'last_message')),
    allowance BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    plan VARCHAR NOT NULL,
    given_at TIMESTAMP NOT NULL,
    day INTEGER NOT NULL,
    PRIMARY KEY (account_id, cycle_starts_at, kind, allowance)
);

-- A send that was not allowed, and why. No text; repeats of one draft carry one draft_id and count once.
CREATE TABLE refusals (
    account_id VARCHAR NOT NULL,
    sequence BIGINT PRIMARY KEY,
    cycle_starts_at TIMESTAMP,
    reason VARCHAR NOT NULL CHECK (reason IN ('no_tokens', 'own_limit', 'allowance_lowered', 'too_long', 'no_consent', 'plan_ended', 'contract_forbids', 'sensitive')),
    tokens_wanted BIGINT NOT NULL,
    draft_id VARCHAR NOT NULL,
    plan VARCHAR,
    refused_at TIMESTAMP NOT NULL,
    day INTEGER NOT NULL
);

-- Append-only and hash-chained: each row's hash covers the row and the hash before it. Two rows can't follow the same one.
CREATE TABLE audit_entries (
    sequence BIGINT PRIMARY KEY,
    actor VARCHAR NOT NULL,
    action VARCHAR NOT NULL,
    subject VARCHAR,
    dispute VARCHAR,
    reason VARCHAR,
    recorded_at TIMESTAMP NOT NULL,
    previous_hash VARCHAR NOT NULL UNIQUE,
    hash VARCHAR NOT NULL
);
CREATE INDEX messages_by_account ON messages (account_id);
CREATE INDEX answers_by_chat ON answers (chat_id);
CREATE INDEX usage_entries_by_account ON usage_entries (account_id);
