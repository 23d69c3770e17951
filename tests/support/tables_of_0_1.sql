-- The steps of release 0.1, as they made its tables (version 9).
CREATE TABLE vibevoice.key (salt bytea NOT NULL, check_value bytea NOT NULL);

-- What is claimed by is in the clear: whose it is, how much work, in which order.
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

CREATE INDEX jobs_open ON vibevoice.jobs (owner, place)
    WHERE state IN ('queued', 'running');

CREATE TABLE vibevoice.events (
    job text NOT NULL REFERENCES vibevoice.jobs (id) ON DELETE CASCADE,
    seq bigint NOT NULL,
    at double precision NOT NULL,
    fleeting boolean NOT NULL,
    mark text NOT NULL,
    change bytea NOT NULL,
    PRIMARY KEY (job, seq));

-- How much work each owner has had, as `jobs.order.Shares` counts it.
CREATE TABLE vibevoice.shares (
    owner text PRIMARY KEY, had_s double precision NOT NULL);

-- Whether nobody has a job. After a start of the database everybody has time to come back.
CREATE FUNCTION vibevoice.free(
        state text, claim text, leased_until timestamptz, lease_s double precision)
    RETURNS boolean STABLE LANGUAGE sql RETURN state IN ('queued', 'running') AND (
        claim IS NULL OR (leased_until < now() AND pg_postmaster_start_time()
            < now() - make_interval(secs => lease_s)));

-- What an owner has had who has something here anew: at least what the least of them had,
-- so that nobody saves up.
CREATE FUNCTION vibevoice.joined(who text) RETURNS void LANGUAGE sql AS $$
    WITH active AS (SELECT DISTINCT owner FROM vibevoice.jobs
        WHERE state IN ('queued', 'running'))
    INSERT INTO vibevoice.shares AS known (owner, had_s)
    SELECT who, coalesce(
        (SELECT min(had_s) FROM vibevoice.shares JOIN active USING (owner)),
        (SELECT max(had_s) FROM vibevoice.shares), 0)
    WHERE NOT EXISTS (SELECT 1 FROM active WHERE active.owner = who)
    ON CONFLICT (owner) DO UPDATE SET had_s = greatest(known.had_s, excluded.had_s) $$;
-- Who looks at the jobs that wait. Each start of a service has another name, so that what
-- it said in an earlier life counts no more. None of this outlives a failure of the
-- database, nor has to: all say it again.
CREATE UNLOGGED TABLE vibevoice.surveyors (
    name text PRIMARY KEY, seen timestamptz NOT NULL);

CREATE UNLOGGED TABLE vibevoice.refusals (
    job text NOT NULL, node text NOT NULL, code text NOT NULL, failure bytea NOT NULL,
    PRIMARY KEY (job, node));

-- Which jobs all of them refuse, since when, and when that was last looked at.
CREATE UNLOGGED TABLE vibevoice.strays (
    job text PRIMARY KEY, since timestamptz NOT NULL, seen timestamptz NOT NULL);
-- Live sessions between two services: until one has taken them, or their time is over.
CREATE TABLE vibevoice.sessions (
    owner text NOT NULL,
    id text NOT NULL,
    until timestamptz NOT NULL,
    taker text,
    session bytea NOT NULL,
    PRIMARY KEY (owner, id));
-- What all nodes are to have: one row, whose number grows.
CREATE TABLE vibevoice.desired (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    generation bigint NOT NULL,
    wanted text NOT NULL,
    at_once integer NOT NULL);

-- Who works, how far each is with that, and who may load now.
CREATE TABLE vibevoice.nodes (
    id text PRIMARY KEY,
    name text NOT NULL,
    seen timestamptz NOT NULL,
    generation bigint NOT NULL,
    state text NOT NULL,
    code text NOT NULL,
    model text NOT NULL,
    precision text NOT NULL,
    turn text,
    turn_until timestamptz);

-- Whether a turn is somebody's. After a start of the database everybody has time to come
-- back.
CREATE FUNCTION vibevoice.held(
        turn text, turn_until timestamptz, lease_s double precision)
    RETURNS boolean STABLE LANGUAGE sql RETURN turn IS NOT NULL AND (
        turn_until > clock_timestamp() OR pg_postmaster_start_time()
            > clock_timestamp() - make_interval(secs => lease_s));
-- A node says once that it is there; who looks at the jobs that wait is one of them.
DROP TABLE vibevoice.surveyors;

ALTER TABLE vibevoice.nodes ADD COLUMN looked boolean NOT NULL DEFAULT false;

CREATE FUNCTION vibevoice.there(seen timestamptz, alive_s double precision)
    RETURNS boolean STABLE LANGUAGE sql
    RETURN seen > clock_timestamp() - make_interval(secs => alive_s);
-- People known by voice. What is sealed gets no smaller.
CREATE TABLE vibevoice.people (
    id text PRIMARY KEY,
    owner text NOT NULL,
    created double precision NOT NULL,
    sealed bytea NOT NULL);

ALTER TABLE vibevoice.people ALTER sealed SET STORAGE EXTERNAL;

CREATE INDEX people_by_owner ON vibevoice.people (owner);

-- Jobs whose clients timed out, until one sends its request again or the time is over.
CREATE TABLE vibevoice.unanswered (
    job text PRIMARY KEY,
    owner text NOT NULL,
    until timestamptz NOT NULL,
    taker text,
    digest bytea NOT NULL);
-- Live sessions of services that have them (`front`), as they were when something was last
-- told, or of none (`until`); and what was said in them, piece by piece.
DROP TABLE vibevoice.sessions;

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

-- Which services hear live, and when each was last heard of.
CREATE TABLE vibevoice.fronts (
    name text PRIMARY KEY, seen timestamptz NOT NULL);

-- Whether a service was heard of in so many seconds. After a start of the database everybody
-- has time to come back.
CREATE FUNCTION vibevoice.lives(front text, within_s double precision)
    RETURNS boolean STABLE LANGUAGE sql RETURN front IS NOT NULL AND (
        pg_postmaster_start_time() > clock_timestamp() - make_interval(secs => within_s)
        OR EXISTS (SELECT FROM vibevoice.fronts WHERE name = front
            AND seen > clock_timestamp() - make_interval(secs => within_s)));
-- Nodes are told no more what to load. The columns for that stay, with defaults, for
-- services of the release before that run beside this one during an update.
ALTER TABLE vibevoice.nodes ALTER name SET DEFAULT '', ALTER generation SET DEFAULT 0,
    ALTER state SET DEFAULT '', ALTER code SET DEFAULT '', ALTER model SET DEFAULT '',
    ALTER precision SET DEFAULT '';
-- A key for each recording, which a program before this version would take for damage.
