-- What stays of a closed account for the rest of its cycle, so that closing and coming back is no second allowance. No text and no name in either.

-- Sign-ins whose account was closed, as a keyed hash of issuer and subject: without the key, which is not in this store, nobody can tell whose.
-- Rows go when `keep_until` has passed. `cycle_ends_at` is when the cycle ends that the account was in; null where it never sent anything.
CREATE TABLE closed_sign_ins (
    digest VARCHAR NOT NULL,
    account_id VARCHAR NOT NULL,
    closed_at TIMESTAMP NOT NULL,
    cycle_ends_at TIMESTAMP,
    keep_until TIMESTAMP NOT NULL
);

-- What an account begins its first cycle with, because the person used it under an account that they closed: tokens, and the figure of the
-- allowance under which a last message was charged. Counts as usage; the entries stand in the ledger under the closed account.
CREATE TABLE carried_usage (
    account_id VARCHAR NOT NULL,
    cycle_starts_at TIMESTAMP NOT NULL,
    tokens BIGINT NOT NULL CHECK (tokens >= 0),
    closed_under BIGINT,
    carried_at TIMESTAMP NOT NULL,
    PRIMARY KEY (account_id, cycle_starts_at)
);
