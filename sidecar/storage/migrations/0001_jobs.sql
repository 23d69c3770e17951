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
