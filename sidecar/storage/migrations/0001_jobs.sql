-- The tables of release 0.1, as far as a later step keeps any of them.
CREATE TABLE vibevoice.key (salt bytea NOT NULL, check_value bytea NOT NULL);

CREATE TABLE vibevoice.jobs (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    owner text NOT NULL,
    submitted bytea NOT NULL,
    idempotency_key text,
    came timestamptz NOT NULL DEFAULT now(),
    urgent boolean NOT NULL,
    work_s double precision NOT NULL,
    charged_s double precision NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'queued',
    seq bigint NOT NULL DEFAULT 0,
    claim text,
    leased_until timestamptz);

CREATE UNIQUE INDEX jobs_by_key ON vibevoice.jobs (owner, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

CREATE TABLE vibevoice.events (
    job text NOT NULL REFERENCES vibevoice.jobs (id) ON DELETE CASCADE,
    seq bigint NOT NULL,
    at double precision NOT NULL,
    fleeting boolean NOT NULL,
    mark text NOT NULL,
    change bytea NOT NULL,
    PRIMARY KEY (job, seq));

CREATE TABLE vibevoice.shares (
    owner text PRIMARY KEY, had_s double precision NOT NULL);

-- Enrolled speakers. Encrypted data cannot be compressed.
CREATE TABLE vibevoice.people (
    id text PRIMARY KEY,
    owner text NOT NULL,
    created double precision NOT NULL,
    sealed bytea NOT NULL);

ALTER TABLE vibevoice.people ALTER sealed SET STORAGE EXTERNAL;

CREATE INDEX people_by_owner ON vibevoice.people (owner);

-- Live sessions: of the service that has them (`front`), as of their last save, or of none (until
-- `until`); and their event logs (`stories`), a piece in each row.
CREATE TABLE vibevoice.sessions (
    owner text NOT NULL,
    id text NOT NULL,
    front text,
    until timestamptz,
    grace_s double precision NOT NULL DEFAULT 15,
    taker text,
    asked timestamptz,
    pieces integer NOT NULL DEFAULT 0,
    session bytea NOT NULL,
    PRIMARY KEY (owner, id));

CREATE TABLE vibevoice.stories (
    owner text NOT NULL,
    id text NOT NULL,
    place integer NOT NULL,
    said bytea NOT NULL,
    PRIMARY KEY (owner, id, place),
    FOREIGN KEY (owner, id) REFERENCES vibevoice.sessions ON DELETE CASCADE);
