-- Every change of a shared job is one autocommitted call of a function below. A call can be
-- repeated without harm, because the caller names what it changes (a job's id, a claim's token, the
-- last event number that it knows). No lock outlives a call. Function names end in their version: a
-- release that changes a function adds the next version, and the release after it drops the old
-- one.
--
-- Lock order: services by id, jobs by id, owners by name. Only `submit` locks an owner first, and
-- then no job that others can see.

SET LOCAL lock_timeout = '10s';

CREATE TABLE vibevoice.key (salt bytea NOT NULL, check_value bytea NOT NULL);

-- What each owner of jobs has had: the seconds of work of its claimed jobs, as predicted, and as
-- done once they are; and when a recording was far longer than its header said.
CREATE TABLE vibevoice.owners (
    owner text PRIMARY KEY, had_s double precision NOT NULL, outlasted timestamptz
    ) WITH (fillfactor = 50);
-- The work that has passed for all: what was claimed, divided by the owners that wanted it.
CREATE TABLE vibevoice.passed (had_s double precision NOT NULL) WITH (fillfactor = 50);
INSERT INTO vibevoice.passed VALUES (0);

-- Registered services. Each service increments its own heartbeat (`beat`); the others observe by
-- their own clocks whether it stands still. A new row begins with a number that no earlier row of
-- the service had. A node's row says what it `can` do, in words, and the longest recording that it
-- accepts.
CREATE TABLE vibevoice.services (
    id text PRIMARY KEY,
    beat bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
    works boolean NOT NULL,
    draining boolean NOT NULL DEFAULT false,
    can text[] NOT NULL DEFAULT '{}',
    longest_s double precision NOT NULL DEFAULT 0,
    since timestamptz NOT NULL DEFAULT clock_timestamp()) WITH (fillfactor = 50);

-- Columns by which jobs are claimed, listed and purged are not encrypted; the rest is. Encrypted
-- data cannot be compressed.
CREATE TABLE vibevoice.jobs (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    owner text NOT NULL,
    submitted bytea NOT NULL,
    idempotency_key text,
    kept boolean NOT NULL DEFAULT true,
    came timestamptz NOT NULL DEFAULT now(),
    urgent boolean NOT NULL,
    wanted text NOT NULL DEFAULT 'auto',     -- the requested precision
    needs text[] NOT NULL DEFAULT '{}',      -- what its node has to be able to do, in words,
    lasts_s double precision NOT NULL DEFAULT 0,  -- and the seconds of its recording
    audio_s double precision,                -- the seconds that it counts in its owner's limit
    work_s double precision NOT NULL CHECK (work_s >= 0 AND work_s < 'Infinity'),
    state text NOT NULL DEFAULT 'queued',
    seq bigint NOT NULL DEFAULT 0,           -- the number of its last event
    claim text,
    node text,                               -- the service that has claimed it
    begins boolean NOT NULL DEFAULT false,   -- whether the claim counts as an attempt if its node dies
    reported_by text,                        -- the claim by which its last event was reported
    fraction double precision NOT NULL DEFAULT 0,
    followers text[] NOT NULL DEFAULT '{}',  -- the services that are notified of its events
    awaited_as text,                         -- SERVICE/TOKEN of the request that waits for its result
    ended timestamptz,
    touched timestamptz,                     -- its end, last edit or last read: retention counts from there
    weight bigint NOT NULL DEFAULT 65536,    -- bytes that it counts for its owner's results
    edited boolean NOT NULL DEFAULT false,
    summary bytea,          -- the summary for lists of a job that is done
    recording text,                          -- its name in the storage, while it is there
    recording_bytes bigint,
    alone boolean NOT NULL DEFAULT false,    -- whether it runs beside no other job
    refused_by text[],                       -- the nodes whose reasons its last `refused` event contains,
    refused_since timestamptz,               -- and since when no node can do it
    left_as text,                            -- its client timed out: a code of its request, and
    left_until timestamptz                   -- when it is deleted unless the same request comes
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE vibevoice.jobs ALTER submitted SET STORAGE EXTERNAL, ALTER summary SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX jobs_by_key ON vibevoice.jobs (owner, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_of_owner ON vibevoice.jobs (owner, place);
CREATE INDEX jobs_open ON vibevoice.jobs (owner, place) WHERE ended IS NULL;
CREATE INDEX jobs_waiting ON vibevoice.jobs (owner, wanted, needs, urgent, (place + 0))
    WHERE state = 'queued' AND claim IS NULL;
CREATE UNIQUE INDEX jobs_by_claim ON vibevoice.jobs (claim) WHERE claim IS NOT NULL;
CREATE INDEX jobs_by_node ON vibevoice.jobs (node) WHERE node IS NOT NULL;
CREATE INDEX jobs_edited ON vibevoice.jobs (owner) WHERE edited;
CREATE INDEX jobs_ended ON vibevoice.jobs (owner, touched DESC) WHERE ended IS NOT NULL;
CREATE INDEX jobs_recordings ON vibevoice.jobs (owner, ended DESC)
    WHERE ended IS NOT NULL AND recording IS NOT NULL;
CREATE INDEX jobs_by_recording ON vibevoice.jobs (recording) WHERE recording IS NOT NULL;
CREATE INDEX jobs_left ON vibevoice.jobs (owner, left_as) WHERE left_as IS NOT NULL;
CREATE INDEX jobs_overdue ON vibevoice.jobs (left_until) WHERE left_until IS NOT NULL;
CREATE INDEX jobs_awaited ON vibevoice.jobs (awaited_as) WHERE awaited_as IS NOT NULL;
CREATE INDEX jobs_alone ON vibevoice.jobs (id) WHERE alone AND state = 'queued' AND claim IS NULL;

-- When a node left a job to others, for how long, why (NULL: it can do it), and how often since the
-- job's last progress. `final`: for as long as there are others; if it can do it, such as can now.
CREATE TABLE vibevoice.put_offs (
    job text NOT NULL REFERENCES vibevoice.jobs (id) ON DELETE CASCADE,
    node text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    for_s double precision NOT NULL,
    final boolean NOT NULL,
    failure bytea,
    tries int NOT NULL DEFAULT 1,
    PRIMARY KEY (job, node)) WITH (fillfactor = 80);
CREATE INDEX put_offs_of_node ON vibevoice.put_offs (node);

-- `kind` is the kind of the event; an event that a function appends has no encrypted `change`, its
-- kind says all. `whole`: a checkpoint with the engine's state, until its job has ended.
CREATE TABLE vibevoice.events (
    job text NOT NULL REFERENCES vibevoice.jobs (id) ON DELETE CASCADE,
    seq bigint NOT NULL,
    at double precision NOT NULL,
    kind text NOT NULL,
    change bytea,
    whole bytea,
    PRIMARY KEY (job, seq)) WITH (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE vibevoice.events ALTER change SET STORAGE EXTERNAL, ALTER whole SET STORAGE EXTERNAL;
CREATE INDEX events_progress ON vibevoice.events (job) WHERE kind = 'progress';
CREATE INDEX events_whole ON vibevoice.events (job) WHERE whole IS NOT NULL;

-- Enrolled speakers.
CREATE TABLE vibevoice.people (
    id text PRIMARY KEY,
    owner text NOT NULL,
    created double precision NOT NULL,
    sealed bytea NOT NULL);
ALTER TABLE vibevoice.people ALTER sealed SET STORAGE EXTERNAL;
CREATE INDEX people_by_owner ON vibevoice.people (owner);

-- Deleted jobs, whose submission may yet be executed late by the server.
CREATE TABLE vibevoice.tombstones (
    id text PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp());
-- Recordings to be deleted from the storage: a service deletes them there, and then here.
CREATE TABLE vibevoice.doomed_recordings (name text PRIMARY KEY);

-- Tasks that one service does for all, and when it last began. 'count': the jobs that waited and
-- ran, and the last `place` of that time.
CREATE TABLE vibevoice.sweeps (
    task text PRIMARY KEY, at timestamptz NOT NULL DEFAULT '-infinity',
    waiting bigint DEFAULT 0, running bigint DEFAULT 0, place bigint DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO vibevoice.sweeps VALUES ('retention'), ('refused'), ('count');

-- Return a row if it is the caller's turn to do a task that is done every `every_s` seconds.
CREATE FUNCTION vibevoice.turn_1(task_ text, every_s float8) RETURNS SETOF text LANGUAGE sql AS $$
    UPDATE vibevoice.sweeps SET at = clock_timestamp() WHERE task = (
        SELECT task FROM vibevoice.sweeps WHERE task = task_ AND NOT at
            BETWEEN clock_timestamp() - make_interval(secs => every_s) AND clock_timestamp()
        FOR UPDATE SKIP LOCKED) RETURNING task $$;

-- Return how many jobs wait and run, as counted at most `age_s` seconds ago.
CREATE FUNCTION vibevoice.count_1(age_s float8) RETURNS TABLE (waiting bigint, running bigint)
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM vibevoice.turn_1('count', age_s)) THEN
        UPDATE vibevoice.sweeps s SET (place, waiting, running) = (
            SELECT (SELECT last_value FROM vibevoice.jobs_place_seq),
                count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'running')
            FROM vibevoice.jobs WHERE ended IS NULL) WHERE task = 'count';
    END IF;
    RETURN QUERY SELECT s.waiting, s.running FROM vibevoice.sweeps s WHERE task = 'count';
END $$;

-- Notify the services that follow a job of its events. If all services were notified, each would
-- wake up for every event of the cluster. `events`: the events themselves, unless they are too long
-- for a notification; a follower that has all events before them need not read them.
CREATE FUNCTION vibevoice.notify_1(followers text[], job_ text, events text DEFAULT '')
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('vibevoice_events_' || follower, job_
        || CASE WHEN events = '' OR octet_length(events) > 7800 THEN '' ELSE E'\n' || events END)
    FROM unnest(followers) follower;
END $$;

-- Append an event to a job whose row is locked.
CREATE FUNCTION vibevoice.append_1(
    job_ text, kind_ text, change_ bytea DEFAULT NULL, at_ float8 DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE j vibevoice.jobs;
BEGIN
    UPDATE vibevoice.jobs SET seq = seq + 1 WHERE id = job_ RETURNING * INTO j;
    INSERT INTO vibevoice.events (job, seq, at, kind, change)
        VALUES (job_, j.seq, coalesce(at_, extract(epoch FROM clock_timestamp())), kind_, change_);
    PERFORM vibevoice.notify_1(j.followers, job_);
END $$;

-- End a job whose row is locked; `seq_`: the number of its last event, if a claim reported it.
CREATE FUNCTION vibevoice.finish_1(
    job_ text, state_ text, summary_ bytea DEFAULT NULL, seq_ bigint DEFAULT NULL,
    claim_ text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE vibevoice.events SET whole = NULL WHERE job = job_ AND whole IS NOT NULL;
    DELETE FROM vibevoice.put_offs WHERE job = job_;
    UPDATE vibevoice.jobs SET state = state_, ended = clock_timestamp(),
        touched = clock_timestamp(), claim = NULL, node = NULL,
        weight = weight + (SELECT coalesce(sum(octet_length(change)), 0) FROM vibevoice.events
            WHERE job = job_),
        summary = summary_, seq = coalesce(seq_, seq), reported_by = coalesce(claim_, reported_by)
    WHERE id = job_;
END $$;

-- Owners with unfinished jobs; one index descent for each.
CREATE FUNCTION vibevoice.owners_1() RETURNS TABLE (owner text) STABLE LANGUAGE sql AS $$
    WITH RECURSIVE found (owner) AS (
        SELECT min(j.owner) FROM vibevoice.jobs j WHERE ended IS NULL
        UNION ALL
        SELECT (SELECT min(j.owner) FROM vibevoice.jobs j
            WHERE ended IS NULL AND j.owner > found.owner) FROM found WHERE found.owner IS NOT NULL)
    SELECT found.owner FROM found WHERE found.owner IS NOT NULL $$;

-- Kinds of waiting jobs: their owners, precisions and needs; one index descent for each.
CREATE FUNCTION vibevoice.kinds_1() RETURNS TABLE (owner text, wanted text, needs text[])
STABLE LANGUAGE sql AS $$
    WITH RECURSIVE found AS (
        (SELECT j.owner, j.wanted, j.needs FROM vibevoice.jobs j
            WHERE state = 'queued' AND claim IS NULL ORDER BY 1, 2, 3 LIMIT 1)
        UNION ALL
        SELECT next.* FROM found CROSS JOIN LATERAL (
            SELECT j.owner, j.wanted, j.needs FROM vibevoice.jobs j
            WHERE state = 'queued' AND claim IS NULL
                AND (j.owner, j.wanted, j.needs) > (found.owner, found.wanted, found.needs)
            ORDER BY 1, 2, 3 LIMIT 1) next)
    SELECT * FROM found $$;

-- Return whether `can` has all `needs`; 'language:*' has every language.
CREATE FUNCTION vibevoice.meets_1(can text[], needs text[]) RETURNS boolean IMMUTABLE LANGUAGE sql
RETURN needs <@ (can || CASE WHEN 'language:*' = ANY (can) THEN ARRAY(
    SELECT need FROM unnest(needs) need WHERE need LIKE 'language:%') END);

-- Return whether a node left a job to others so lately that it does not claim it.
CREATE FUNCTION vibevoice.rests_1(p vibevoice.put_offs) RETURNS boolean STABLE LANGUAGE sql
RETURN clock_timestamp() BETWEEN p.at AND p.at + make_interval(secs => p.for_s);

-- Return the nodes that are there and can do a job. `last`: others go before it, however busy they
-- are: one more attempt there might end the job. `refuses`: it cannot do it, or does not now.
CREATE FUNCTION vibevoice.able_1(j vibevoice.jobs)
RETURNS TABLE (node text, last boolean, refuses boolean) STABLE LANGUAGE sql AS $$
    SELECT s.id, coalesce(final, false),
        failure IS NOT NULL AND (final OR vibevoice.rests_1(p))
    FROM vibevoice.services s LEFT JOIN vibevoice.put_offs p ON p.job = j.id AND p.node = s.id
    WHERE works AND NOT draining AND j.lasts_s <= longest_s AND vibevoice.meets_1(can, j.needs) $$;

-- Return the work that is left of the longest job of a node. Not STABLE: plans would execute it.
CREATE FUNCTION vibevoice.left_1(node_ text) RETURNS float8 LANGUAGE sql RETURN (
    SELECT coalesce(max(work_s * (1 - fraction)), 0) FROM vibevoice.jobs WHERE node = node_);

-- Return the jobs that wait and that a node leaves to others. `fresh`: all that it left before. A job
-- that runs alone is for the node that will be free first.
CREATE FUNCTION vibevoice.skipped_1(node_ text, fresh boolean) RETURNS SETOF text
STABLE LANGUAGE sql AS $$
    SELECT p.job FROM vibevoice.put_offs p WHERE p.node = node_ AND (fresh OR vibevoice.rests_1(p)
        OR final AND EXISTS (SELECT FROM vibevoice.jobs j, vibevoice.able_1(j) able
            WHERE j.id = p.job AND NOT last AND (failure IS NOT NULL OR NOT refuses)))
    UNION ALL
    SELECT id FROM vibevoice.jobs j WHERE alone AND state = 'queued' AND claim IS NULL AND EXISTS (
        SELECT FROM vibevoice.able_1(j) able WHERE NOT (last OR refuses)
            AND vibevoice.left_1(able.node) < vibevoice.left_1(node_)) $$;

-- Register an owner, or one that had no unfinished jobs and returns. It starts at the work that has
-- passed for all, so that no owner saves up work, and no long job waits for ever behind newcomers.
CREATE FUNCTION vibevoice.join_1(owner_ text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM vibevoice.owners WHERE owner = owner_ FOR KEY SHARE;  -- claims update it
    IF FOUND AND EXISTS (SELECT FROM vibevoice.jobs WHERE owner = owner_ AND ended IS NULL) THEN
        RETURN;
    END IF;
    INSERT INTO vibevoice.owners AS o SELECT owner_, had_s FROM vibevoice.passed
        ON CONFLICT (owner) DO UPDATE SET had_s = greatest(o.had_s, excluded.had_s);
END $$;

-- Charge an owner for a job that is claimed. By its end the owner does not count as behind the work
-- that has passed for all, as one would whose jobs no node could run for long; and what has passed
-- is at least what this owner had had before. Not LANGUAGE sql, whose plans are not kept.
CREATE FUNCTION vibevoice.charge_1(owner_ text, work_s float8) RETURNS void LANGUAGE plpgsql AS $$
DECLARE tag float8;
BEGIN
    UPDATE vibevoice.owners o SET had_s = greatest(o.had_s + work_s, p.had_s)
        FROM vibevoice.passed p WHERE owner = owner_ RETURNING o.had_s INTO tag;
    UPDATE vibevoice.passed SET had_s = greatest(had_s, tag - work_s, least(tag,
        had_s + work_s / (SELECT count(*) FROM (
            SELECT w.owner FROM vibevoice.owners_1() w UNION SELECT owner_) wanted)));
END $$;

-- Settle what the owner of a claimed job was charged: by the prediction, which trusts a header. If
-- the job is done, with the work that it was. If it goes on and did more already, with twice that,
-- so that a long job is settled a few times. Differences below a twentieth are not worth it.
CREATE FUNCTION vibevoice.settle_1(
    j vibevoice.jobs, worked_s float8, outlasts boolean, done boolean)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE more_s float8 := CASE WHEN done THEN worked_s WHEN worked_s > j.work_s THEN 2 * worked_s
    ELSE j.work_s END - j.work_s;
BEGIN
    IF outlasts THEN
        UPDATE vibevoice.owners SET outlasted = clock_timestamp() WHERE owner = j.owner;
    END IF;
    IF abs(more_s) <= j.work_s / 20 THEN RETURN; END IF;
    UPDATE vibevoice.jobs SET work_s = work_s + more_s WHERE id = j.id;
    UPDATE vibevoice.owners SET had_s = had_s + more_s WHERE owner = j.owner;
END $$;

-- Return whether a job of this id was deleted before its submission. Calls with one id are
-- serialized.
CREATE FUNCTION vibevoice.buried_1(id_ text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(id_, 8530221459172614243));
    RETURN EXISTS (SELECT FROM vibevoice.tombstones WHERE id = id_);
END $$;

-- Submit a job. Returns 'accepted', 'known' (its key or id exists, as `job`), 'queue_full', or
-- 'deleted' (it was deleted before this call was executed). `awaited_`: as of the
-- column; `follower_`: a service that is notified of its events.
CREATE FUNCTION vibevoice.submit_1(
    id_ text, owner_ text, key_ text, submitted_ bytea, kept_ boolean, urgent_ boolean,
    wanted_ text, needs_ text[], lasts_s_ float8, audio_s_ float8, work_s_ float8,
    recording_ text, recording_bytes_ bigint, awaited_ text, follower_ text, limit_ int)
RETURNS TABLE (outcome text, job text) LANGUAGE plpgsql
-- Planned once for a connection: else anew in each of its first five calls.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off AS $$
DECLARE there text;
BEGIN
    IF vibevoice.buried_1(id_) THEN
        RETURN QUERY SELECT 'deleted', id_;
        RETURN;
    END IF;
    -- No more wait than at the last count and came since; only if that is too many, they are counted.
    IF limit_ <= (SELECT waiting + last_value - place FROM vibevoice.sweeps, vibevoice.jobs_place_seq
            WHERE task = 'count')
        AND limit_ <= (SELECT count(*) FROM (
            SELECT FROM vibevoice.jobs WHERE state = 'queued' AND ended IS NULL LIMIT limit_) waiting)
        AND NOT EXISTS (SELECT FROM vibevoice.jobs
            WHERE id = id_ OR (owner = owner_ AND idempotency_key = key_)) THEN
        RETURN QUERY SELECT 'queue_full', ''::text;
        RETURN;
    END IF;
    PERFORM vibevoice.join_1(owner_);
    INSERT INTO vibevoice.jobs (id, owner, idempotency_key, submitted, kept, urgent, wanted, needs,
            lasts_s, audio_s, work_s, recording, recording_bytes, awaited_as, followers)
        VALUES (id_, owner_, key_, submitted_, kept_, urgent_, wanted_, needs_, lasts_s_, audio_s_,
            work_s_, recording_, recording_bytes_, awaited_, array_remove(ARRAY[follower_], NULL))
        ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT id INTO there FROM vibevoice.jobs
            WHERE id = id_ OR (owner = owner_ AND idempotency_key = key_) LIMIT 1;
        RETURN QUERY SELECT CASE WHEN there = id_ THEN 'accepted' ELSE 'known' END, there;
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM vibevoice.tombstones WHERE id = id_) THEN  -- the insert waited for that
        DELETE FROM vibevoice.jobs WHERE id = id_;
        RETURN QUERY SELECT 'deleted', id_;
        RETURN;
    END IF;
    PERFORM pg_notify('vibevoice_waiting', '');
    RETURN QUERY SELECT 'accepted', id_;
END $$;

-- Import a job that has ended already, with all its events: a live session. Return whether it is
-- there; else another has, or had, its id.
CREATE FUNCTION vibevoice.import_1(
    id_ text, owner_ text, submitted_ bytea, audio_s_ float8, recording_ text,
    recording_bytes_ bigint, seqs bigint[], ats float8[], kinds text[], changes bytea[],
    state_ text, summary_ bytea) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF vibevoice.buried_1(id_) THEN RETURN false; END IF;
    PERFORM vibevoice.join_1(owner_);
    INSERT INTO vibevoice.jobs (id, owner, submitted, urgent, audio_s, work_s, recording,
            recording_bytes)
        VALUES (id_, owner_, submitted_, true, audio_s_, 0, recording_, recording_bytes_)
        ON CONFLICT (id) DO NOTHING;
    IF FOUND THEN
        INSERT INTO vibevoice.events (job, seq, at, kind, change)
            SELECT id_, u.* FROM unnest(seqs, ats, kinds, changes) u;
        PERFORM vibevoice.finish_1(id_, state_, summary_, seqs[cardinality(seqs)]);
        RETURN true;
    END IF;
    RETURN EXISTS (SELECT FROM vibevoice.jobs WHERE id = id_ AND submitted = submitted_);
END $$;

-- Return whether a job goes behind interactive ones: a batch job, for its first 10 minutes.
CREATE FUNCTION vibevoice.later_1(urgent boolean, came timestamptz) RETURNS boolean
    STABLE LANGUAGE sql RETURN NOT urgent AND came > statement_timestamp() - interval '10 min';

-- Return the next job for a node: of each owner the first that the node can do, but for those to
-- `skip`; of these the one whose owner would have had least by its end. `only_`: only jobs of these
-- precisions.
CREATE FUNCTION vibevoice.next_1(can_ text[], longest_s_ float8, only_ text[], skip text[])
RETURNS TABLE (job text, wanted text, came timestamptz) STABLE LANGUAGE sql AS $$
    SELECT first.id, first.wanted, first.came FROM (
        SELECT DISTINCT ON (kind.owner) kind.owner, kind.wanted, head.*
        FROM vibevoice.kinds_1() kind CROSS JOIN (VALUES (true), (false)) u (urgent)
        CROSS JOIN LATERAL (
            SELECT id, j.came, work_s, j.urgent, place + 0 AS place FROM vibevoice.jobs j
            WHERE j.owner = kind.owner AND j.wanted = kind.wanted AND j.needs = kind.needs
                AND j.urgent = u.urgent AND state = 'queued' AND claim IS NULL
                AND lasts_s <= longest_s_ AND id NOT IN (SELECT unnest(skip))
            ORDER BY place + 0 LIMIT 1) head
        WHERE (kind.needs <@ can_ OR vibevoice.meets_1(can_, kind.needs))  -- the second costs more
            AND (only_ IS NULL OR kind.wanted = ANY (only_))
        ORDER BY kind.owner, vibevoice.later_1(head.urgent, head.came), head.place) first
    LEFT JOIN vibevoice.owners had USING (owner)
    ORDER BY greatest(had.had_s + first.work_s, (SELECT had_s FROM vibevoice.passed)), first.place
    LIMIT 1 $$;

-- Claim the next job. `can_`, `longest_s_`: what the node can do now. `loaded_`: the precisions that
-- need no load, loaded for `loaded_for_s` seconds; they pass over a due job for at most
-- `passed_over_s` seconds. `begins_`: an attempt of the job starts at once and alone, and counts
-- from now on. `fresh_`: only jobs that the node has not left to others. `tries`: how often it did.
-- `more`: other jobs may wait.
CREATE FUNCTION vibevoice.claim_1(
    node_ text, claim_ text, can_ text[], longest_s_ float8, loaded_ text[], loaded_for_s float8,
    passed_over_s float8, begins_ boolean DEFAULT false, fresh_ boolean DEFAULT false)
RETURNS TABLE (job text, seq bigint, submitted bytea, tries int, more boolean) LANGUAGE plpgsql
-- Whatever the statistics say: `jobs_waiting` has the first jobs of each kind in their order.
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$  -- as `submit_1`
DECLARE due record; other record; had vibevoice.jobs; skip text[];
BEGIN
    -- One claim at a time, a few milliseconds each: each has to see what the one before took.
    PERFORM pg_advisory_xact_lock(8530221459172614241);
    SELECT * INTO had FROM vibevoice.jobs j WHERE j.claim = claim_;  -- the answer was lost
    IF NOT FOUND THEN
        PERFORM FROM vibevoice.services WHERE id = node_ AND NOT draining FOR KEY SHARE;
        IF NOT FOUND THEN RETURN; END IF;
        skip := ARRAY(SELECT s FROM vibevoice.skipped_1(node_, fresh_) s);
        SET LOCAL lock_timeout = '200ms';
        LOOP
            SELECT * INTO due FROM vibevoice.next_1(can_, longest_s_, NULL, skip);
            IF NOT FOUND THEN RETURN; END IF;
            IF cardinality(loaded_) > 0 AND NOT due.wanted = ANY (loaded_)
                    AND least(extract(epoch FROM clock_timestamp() - due.came), loaded_for_s)
                        < passed_over_s THEN
                SELECT * INTO other FROM vibevoice.next_1(can_, longest_s_, loaded_, skip);
                IF FOUND THEN due := other; END IF;
            END IF;
            SELECT * INTO had FROM vibevoice.jobs
                WHERE id = due.job AND (state || coalesce(claim, '')) = 'queued'  -- no partial index
                FOR UPDATE SKIP LOCKED;
            EXIT WHEN FOUND;
            BEGIN  -- another call has it: for milliseconds
                PERFORM FROM vibevoice.jobs WHERE id = due.job FOR UPDATE;
            EXCEPTION WHEN lock_not_available THEN
                skip := skip || due.job;
            END;
        END LOOP;
        SET LOCAL lock_timeout = '2s';
        UPDATE vibevoice.jobs SET claim = claim_, node = node_, begins = begins_ WHERE id = had.id;
        PERFORM vibevoice.charge_1(had.owner, had.work_s);
    END IF;
    RETURN QUERY SELECT had.id, had.seq, had.submitted, coalesce((SELECT p.tries FROM
            vibevoice.put_offs p WHERE p.job = had.id AND p.node = node_), 0),
        EXISTS (SELECT FROM vibevoice.jobs WHERE state = 'queued' AND claim IS NULL);
END $$;

-- End the claim on a job whose row is locked, and give its owner the work back.
CREATE FUNCTION vibevoice.free_1(job_ text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE j vibevoice.jobs;
BEGIN
    SELECT * INTO j FROM vibevoice.jobs WHERE id = job_;
    IF j.state = 'running' THEN  -- its node died in it
        PERFORM vibevoice.append_1(job_, 'interrupted');
    END IF;
    UPDATE vibevoice.jobs SET state = 'queued', claim = NULL, node = NULL, begins = false,
        fraction = 0, alone = alone OR j.state = 'running' WHERE id = job_;
    UPDATE vibevoice.owners SET had_s = had_s - j.work_s WHERE owner = j.owner;
END $$;

-- Release a claim.
CREATE FUNCTION vibevoice.release_1(claim_ text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM vibevoice.free_1(id) FROM (
        SELECT id FROM vibevoice.jobs WHERE claim = claim_ FOR UPDATE) held;
    PERFORM pg_notify('vibevoice_waiting', '');
END $$;

-- Release a claim, and leave the job to other nodes (as `put_offs` says).
CREATE FUNCTION vibevoice.put_off_1(claim_ text, for_s_ float8, final_ boolean, failure_ bytea)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO vibevoice.put_offs AS p (job, node, for_s, final, failure)
        SELECT id, node, for_s_, final_, failure_ FROM vibevoice.jobs WHERE claim = claim_ FOR UPDATE
        ON CONFLICT (job, node) DO UPDATE SET (at, for_s, final, failure, tries) = (
            excluded.at, excluded.for_s, excluded.final, excluded.failure, p.tries + 1);
    PERFORM vibevoice.release_1(claim_);
END $$;

-- Append the events that a node reports of its job, all or nothing. Return whether they are
-- persisted, also if an earlier call did it. False: the claim is lost. It is ended here if the
-- node's last event number differs, as after the failover of a database that had lost its last
-- commits. `worked_s`: seconds of audio that are recognized, in all channels.
CREATE FUNCTION vibevoice.report_1(
    job_ text, claim_ text, base bigint, seqs bigint[], ats float8[], kinds text[],
    changes bytea[], wholes bytea[], state_ text, fraction_ float8, worked_s float8, outlasts boolean, summary_ bytea, alone_ boolean DEFAULT false) RETURNS boolean LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$  -- as `submit_1`
DECLARE j vibevoice.jobs; last bigint := seqs[cardinality(seqs)];
BEGIN
    SELECT * INTO j FROM vibevoice.jobs WHERE id = job_ FOR UPDATE;
    IF j.id IS NULL OR j.claim IS DISTINCT FROM claim_ OR j.seq <> base THEN
        IF j.reported_by = claim_ AND j.seq >= last AND (j.claim = claim_ OR EXISTS (
                SELECT FROM vibevoice.events e WHERE e.job = job_ AND e.seq = last
                AND e.kind = kinds[cardinality(kinds)])) THEN
            RETURN true;  -- persisted by another execution of this call
        END IF;
        IF j.claim = claim_ THEN PERFORM vibevoice.release_1(claim_); END IF;
        RETURN false;
    END IF;
    IF 'progress' = ANY (kinds) THEN  -- only the last counts
        DELETE FROM vibevoice.events WHERE job = job_ AND kind = 'progress';
    END IF;
    INSERT INTO vibevoice.events (job, seq, at, kind, change, whole)
        SELECT job_, u.* FROM unnest(seqs, ats, kinds, changes, wholes) u;
    PERFORM vibevoice.settle_1(j, worked_s, outlasts, state_ = 'done');
    IF state_ IN ('done', 'failed', 'cancelled') THEN
        PERFORM vibevoice.finish_1(job_, state_, summary_, last, claim_);
    ELSE
        UPDATE vibevoice.jobs SET seq = last, state = state_, reported_by = claim_, begins = false,
            fraction = fraction_, alone = alone_, refused_by = NULL, refused_since = NULL
            WHERE id = job_;
        IF 'checkpoint' = ANY (kinds) THEN DELETE FROM vibevoice.put_offs WHERE job = job_; END IF;
    END IF;
    -- Commits with a notification are serialized, so there is none without a follower.
    IF j.followers <> '{}' THEN
        PERFORM vibevoice.notify_1(j.followers, job_, (
            SELECT json_build_object('base', base, 'events', json_agg(
                json_build_array(s, a, k, encode(c, 'base64'))))::text
            FROM unnest(seqs, ats, kinds, changes) u (s, a, k, c)));
    END IF;
    RETURN true;
END $$;

-- Increment a service's heartbeat, or register it. Nodes are notified if it can do more than before.
CREATE FUNCTION vibevoice.beat_1(id_ text, works_ boolean, draining_ boolean,
    can_ text[] DEFAULT '{}', longest_s_ float8 DEFAULT 0) RETURNS void LANGUAGE sql AS $$
    SELECT pg_notify('vibevoice_waiting', '') WHERE NOT EXISTS (SELECT FROM vibevoice.services
        WHERE id = id_ AND can_ <@ can AND longest_s_ <= longest_s);
    INSERT INTO vibevoice.services AS s (id, works, draining, can, longest_s)
        VALUES (id_, works_, draining_, can_, longest_s_) ON CONFLICT (id) DO UPDATE
        SET beat = s.beat + 1, draining = draining_, can = can_, longest_s = longest_s_ $$;

-- Deregister services that leave, or whose heartbeats still have the observed number (NULL: any).
-- Their running jobs are released in the same transaction.
CREATE FUNCTION vibevoice.expire_1(ids text[], beats bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE gone text[]; j record;
BEGIN
    SELECT array_agg(id) INTO gone FROM (
        SELECT s.id FROM vibevoice.services s JOIN unnest(ids, beats) u (i, b) ON s.id = u.i
        WHERE s.beat = coalesce(u.b, s.beat) ORDER BY s.id FOR UPDATE OF s) locked;
    FOR j IN SELECT id, begins FROM (SELECT id, owner, begins FROM vibevoice.jobs
            WHERE node = ANY (gone) ORDER BY id FOR UPDATE) locked ORDER BY owner, id LOOP
        IF j.begins THEN
            UPDATE vibevoice.jobs SET state = 'running' WHERE id = j.id;
            PERFORM vibevoice.append_1(j.id, 'begun');
        END IF;
        PERFORM vibevoice.free_1(j.id);
    END LOOP;
    DELETE FROM vibevoice.put_offs WHERE node = ANY (gone);
    DELETE FROM vibevoice.services WHERE id = ANY (gone);
    PERFORM pg_notify('vibevoice_waiting', '');
END $$;

-- Cancel a job, waiting or running anywhere; a job that has ended does not change. Return the
-- seconds since its submission, if this call ended it.
CREATE FUNCTION vibevoice.cancel_1(job_ text) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE j vibevoice.jobs;
BEGIN
    SELECT * INTO j FROM vibevoice.jobs WHERE id = job_ FOR UPDATE;
    IF j.id IS NULL OR j.ended IS NOT NULL THEN RETURN NULL; END IF;
    PERFORM vibevoice.finish_1(job_, 'cancelled');
    PERFORM vibevoice.append_1(job_, 'cancelled');
    IF j.claim IS NOT NULL THEN PERFORM pg_notify('vibevoice_ended', job_); END IF;
    RETURN extract(epoch FROM clock_timestamp() - j.came);
END $$;

-- After the deletion of a job by any statement: it cannot be submitted late, its recording is
-- deleted, and the services that follow or run it are notified.
CREATE FUNCTION vibevoice.deleted_1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO vibevoice.tombstones (id) VALUES (OLD.id) ON CONFLICT DO NOTHING;
    INSERT INTO vibevoice.doomed_recordings SELECT OLD.recording WHERE OLD.recording IS NOT NULL
        ON CONFLICT DO NOTHING;
    PERFORM vibevoice.notify_1(OLD.followers, OLD.id);
    IF OLD.claim IS NOT NULL THEN PERFORM pg_notify('vibevoice_ended', OLD.id); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER deleted AFTER DELETE ON vibevoice.jobs
    FOR EACH ROW EXECUTE FUNCTION vibevoice.deleted_1();

-- Delete a job with all its data, also one that is not submitted yet; with `base` only if that is its
-- last event. `lasted_s`: the seconds since its submission, if this call ended it.
CREATE FUNCTION vibevoice.delete_1(job_ text, base bigint DEFAULT NULL)
RETURNS TABLE (deleted boolean, lasted_s float8) LANGUAGE plpgsql AS $$
BEGIN
    deleted := true;
    IF NOT vibevoice.buried_1(job_) THEN
        -- First, since other calls that delete the job lock it before its tombstone.
        DELETE FROM vibevoice.jobs WHERE id = job_ AND seq = coalesce(base, seq)
            RETURNING extract(epoch FROM clock_timestamp() - CASE WHEN ended IS NULL THEN came END)
            INTO lasted_s;
        deleted := NOT EXISTS (SELECT FROM vibevoice.jobs WHERE id = job_);
        IF deleted THEN
            INSERT INTO vibevoice.tombstones (id) VALUES (job_) ON CONFLICT DO NOTHING;
        END IF;
    END IF;
    RETURN NEXT;
END $$;

-- Edit the transcript of a job that is done, if its last event is `base`; return whether it is
-- edited. NULL: the edited ones of its owner have `most_bytes` already.
CREATE FUNCTION vibevoice.edit_1(
    job_ text, base bigint, change_ bytea, at_ float8, summary_ bytea, most_bytes bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE j vibevoice.jobs;
BEGIN
    SELECT * INTO j FROM vibevoice.jobs WHERE id = job_ FOR UPDATE;
    IF j.state IS DISTINCT FROM 'done' OR j.seq <> base THEN
        RETURN EXISTS (SELECT FROM vibevoice.events e
            WHERE e.job = job_ AND e.seq = base + 1 AND e.change = change_);
    END IF;
    IF most_bytes <= (SELECT sum(weight) FROM vibevoice.jobs WHERE owner = j.owner AND edited) THEN
        RETURN NULL;
    END IF;
    PERFORM vibevoice.append_1(job_, 'edited', change_, at_);
    UPDATE vibevoice.jobs SET touched = clock_timestamp(), edited = true, summary = summary_,
        weight = weight + octet_length(change_) WHERE id = job_;
    RETURN true;
END $$;

-- Waiting jobs that no node which is there can do: these nodes, whether the last `refused` event has
-- them, and for how many seconds that is so and no node came.
CREATE VIEW vibevoice.refused_1 AS
    SELECT j.id AS job, seq, needs, lasts_s, nodes,
        refused_by IS NOT DISTINCT FROM nodes AS told, coalesce(extract(epoch FROM
            clock_timestamp() - refused_since - greatest(last - refused_since, '0')), 0)::float8 AS for_s
    FROM vibevoice.jobs j, (SELECT array_agg(id ORDER BY id) AS nodes, max(since) AS last
        FROM vibevoice.services WHERE works AND NOT draining) there
    WHERE state = 'queued' AND claim IS NULL AND nodes IS NOT NULL
        AND NOT EXISTS (SELECT FROM vibevoice.able_1(j) WHERE NOT refuses);

-- Append that a node can do jobs again. Those that another call has locked are left to the next time.
CREATE FUNCTION vibevoice.tell_open_1() RETURNS void LANGUAGE sql AS $$
    WITH open AS (
        UPDATE vibevoice.jobs SET refused_by = NULL, refused_since = NULL WHERE id IN (
            SELECT id FROM vibevoice.jobs WHERE state = 'queued' AND claim IS NULL
                AND refused_by IS NOT NULL AND id NOT IN (SELECT job FROM vibevoice.refused_1)
                AND EXISTS (SELECT FROM vibevoice.services WHERE works AND NOT draining)
            ORDER BY id FOR UPDATE SKIP LOCKED) RETURNING id)
    SELECT vibevoice.append_1(id, 'open') FROM open $$;

-- Append that these nodes, which are all, refuse a job, or (`ends_`) end it for that, if its last
-- event is still `base` and still none can do it. Return the seconds since its submission, if this
-- call ended it.
CREATE FUNCTION vibevoice.tell_refused_1(
    job_ text, base bigint, nodes_ text[], ends_ boolean, change_ bytea)
RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE j vibevoice.jobs;
BEGIN
    SELECT * INTO j FROM vibevoice.jobs WHERE id = job_ AND seq = base AND state = 'queued'
        AND claim IS NULL FOR UPDATE;
    IF NOT FOUND OR NOT EXISTS (SELECT FROM vibevoice.refused_1 r
        WHERE r.job = job_ AND r.nodes = nodes_) THEN RETURN NULL; END IF;
    IF ends_ THEN
        PERFORM vibevoice.finish_1(job_, 'failed');
    ELSE
        UPDATE vibevoice.jobs SET refused_by = nodes_,
            refused_since = coalesce(refused_since, clock_timestamp()) WHERE id = job_;
    END IF;
    PERFORM vibevoice.append_1(job_, CASE WHEN ends_ THEN 'failed' ELSE 'refused' END, change_);
    RETURN CASE WHEN ends_ THEN extract(epoch FROM clock_timestamp() - j.came) END;
END $$;

-- Return the waiting jobs in the order of claims, with their seconds of work; and how many run, and
-- their remaining seconds of work. It is one statement, so that a job that starts meanwhile is
-- either in line or running. A row has at most 200 jobs: libpq keeps a buffer of the longest row.
CREATE FUNCTION vibevoice.line_1()
RETURNS TABLE (jobs text, works_s float8[], running bigint, left_s float8)
STABLE LANGUAGE sql AS $$
    SELECT string_agg(id, ' ' ORDER BY nth), array_agg(work_s ORDER BY nth), now.running, now.left_s
    FROM (SELECT id, work_s, row_number() OVER (ORDER BY claim IS NULL, end_s, place) AS nth FROM (
            SELECT id, place, work_s, claim, sum(work_s) OVER own
                + greatest(o.had_s, passed.had_s - first_value(work_s) OVER own) AS end_s
            FROM vibevoice.jobs LEFT JOIN vibevoice.owners o USING (owner), vibevoice.passed
            WHERE state = 'queued' AND ended IS NULL
            WINDOW own AS (PARTITION BY owner ORDER BY vibevoice.later_1(urgent, came), place)) jobs
        ) queued, (
        SELECT count(*) AS running, coalesce(sum(work_s * (1 - fraction)), 0) AS left_s
        FROM vibevoice.jobs WHERE claim IS NOT NULL AND state = 'running') now
    GROUP BY nth / 200, now.running, now.left_s ORDER BY nth / 200 $$;

-- Restart the retention of an ended job that its owner reads, unless it began less than `every_s`
-- seconds ago.
CREATE FUNCTION vibevoice.renew_1(job_ text, every_s float8) RETURNS void LANGUAGE sql AS $$
    UPDATE vibevoice.jobs SET touched = clock_timestamp() WHERE id = job_ AND NOT touched
        BETWEEN clock_timestamp() - make_interval(secs => every_s) AND clock_timestamp() $$;

-- Return an owner's results, numbered from the one that ended last; `held`: the bytes that are held
-- as long as this one is, since edited ones stay and the others go by their last use; NULL: edited.
CREATE FUNCTION vibevoice.results_1(owner_ text)
RETURNS TABLE (job text, touched timestamptz, nth bigint, held bigint) STABLE LANGUAGE sql AS $$
    SELECT id, touched, row_number() OVER (ORDER BY ended DESC, place DESC), CASE WHEN NOT edited
        THEN (sum(weight) OVER (PARTITION BY edited ORDER BY touched DESC, place DESC)
            + coalesce(sum(weight) FILTER (WHERE edited) OVER (), 0))::bigint END
    FROM vibevoice.jobs WHERE ended IS NOT NULL AND owner = owner_
        AND kept $$;  -- others are deleted by the service at which the client waits

-- Delete some of an owner's results for their age (NULL: no limit) or for the size of all, but not
-- the one that ended last. Then delete some recordings of ended jobs. Those of jobs that are done stay,
-- the newest first, up to `most_recorded` bytes. Return what was deleted, with the bytes of each
-- result that went for the size; if it is as much as `batch`, there may be more.
CREATE FUNCTION vibevoice.purge_1(owner_ text, age_s float8, most_bytes bigint,
    most_recorded bigint, batch int)
RETURNS TABLE (deleted text, bytes bigint) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY WITH due AS (
        SELECT r.*, r.touched < clock_timestamp() - make_interval(secs => age_s) AS old
        FROM vibevoice.results_1(owner_) r),
    locked AS MATERIALIZED (
        SELECT j.id, CASE WHEN due.old IS NOT TRUE THEN j.weight END AS size
        FROM vibevoice.jobs j JOIN (
            SELECT * FROM due WHERE due.old OR (nth > 1 AND held > most_bytes)
            ORDER BY due.touched LIMIT batch) due
        ON due.job = j.id AND due.touched = j.touched  -- not used meanwhile
        ORDER BY j.id FOR UPDATE OF j SKIP LOCKED)
    DELETE FROM vibevoice.jobs j USING locked WHERE j.id = locked.id RETURNING j.id, locked.size;
    RETURN QUERY WITH shelf AS (
        SELECT id, ended, fits,
            sum(recording_bytes) FILTER (WHERE fits) OVER (ORDER BY ended DESC, place DESC) AS held
        FROM vibevoice.jobs, LATERAL (
            SELECT state = 'done' AND recording_bytes <= most_recorded AS fits) judged
        WHERE ended IS NOT NULL AND recording IS NOT NULL AND owner = owner_),
    locked AS MATERIALIZED (
        SELECT j.id, j.recording AS name FROM vibevoice.jobs j JOIN (
            SELECT id FROM shelf WHERE NOT fits OR held > most_recorded OR most_recorded = 0
            ORDER BY ended LIMIT batch) due USING (id)
        WHERE j.recording IS NOT NULL  -- not deleted by another call meanwhile
        ORDER BY j.id FOR UPDATE OF j SKIP LOCKED),
    given_up AS (
        UPDATE vibevoice.jobs j SET recording = NULL FROM locked WHERE j.id = locked.id
        RETURNING locked.name),
    doomed AS (
        INSERT INTO vibevoice.doomed_recordings SELECT name FROM given_up ON CONFLICT DO NOTHING)
    SELECT name, NULL::bigint FROM given_up;
END $$;

-- Delete owners without jobs, and tombstones so old that no earlier call can still be executed.
CREATE FUNCTION vibevoice.tidy_1() RETURNS void LANGUAGE plpgsql AS $$
DECLARE idle text[];
BEGIN
    SELECT array_agg(owner) INTO idle FROM (
        SELECT owner FROM vibevoice.owners o
        WHERE NOT EXISTS (SELECT FROM vibevoice.jobs j WHERE j.owner = o.owner)
        ORDER BY owner LIMIT 1000 FOR UPDATE SKIP LOCKED) locked;
    -- A separate statement sees what was submitted before the rows were locked.
    DELETE FROM vibevoice.owners o WHERE owner = ANY (idle)
        AND NOT EXISTS (SELECT FROM vibevoice.jobs j WHERE j.owner = o.owner);
    DELETE FROM vibevoice.tombstones WHERE at < clock_timestamp() - interval '1 hour';
END $$;

-- Leave the job that a client awaited, and timed out, to the same request (`key_`). A late execution
-- does not undo a later take, which awaits it by another token; nor is it undone by one.
CREATE FUNCTION vibevoice.leave_1(token text, key_ text, for_s float8) RETURNS void LANGUAGE sql AS $$
    SELECT vibevoice.buried_1(token);
    INSERT INTO vibevoice.tombstones (id) VALUES (token) ON CONFLICT DO NOTHING;
    UPDATE vibevoice.jobs SET left_as = key_, awaited_as = NULL,
        left_until = clock_timestamp() + make_interval(secs => for_s)
    WHERE awaited_as = token $$;

-- Take the job that the same request left; a repeated call returns the same job.
CREATE FUNCTION vibevoice.take_1(owner_ text, key_ text, token text)
RETURNS TABLE (job text) LANGUAGE sql AS $$
    UPDATE vibevoice.jobs SET awaited_as = token, left_until = NULL, followers = array_append(
        array_remove(followers, split_part(token, '/', 1)), split_part(token, '/', 1))
    WHERE id = (
        SELECT id FROM vibevoice.jobs WHERE owner = owner_ AND left_as = key_
            AND (SELECT NOT vibevoice.buried_1(token))
            AND (awaited_as IS NULL OR awaited_as = token) AND state <> 'cancelled'
        ORDER BY awaited_as, left_until LIMIT 1 FOR UPDATE)
    RETURNING id $$;

-- Return whether no client waits for a job at a service that is registered.
CREATE FUNCTION vibevoice.unattended_1(awaited_as text) RETURNS boolean STABLE LANGUAGE sql
RETURN NOT EXISTS (SELECT FROM vibevoice.services WHERE id = split_part(awaited_as, '/', 1));

-- Delete some jobs whose clients did not return in time, the longest overdue first. Return of each
-- the seconds since its submission, if that ended it. A service that is not registered, at which a
-- client waits, may only be cut off: it has a quarter of an hour to return. At most 1000 in a call;
-- the next one does the rest.
CREATE FUNCTION vibevoice.delete_overdue_1(batch int) RETURNS TABLE (lasted_s float8)
LANGUAGE sql SET enable_seqscan = off SET jit = off AS $$
    UPDATE vibevoice.jobs SET left_until =
        CASE WHEN left_until IS NULL THEN clock_timestamp() + interval '15 min' END WHERE id IN (
        SELECT id FROM vibevoice.jobs WHERE awaited_as IS NOT NULL
            AND vibevoice.unattended_1(awaited_as) = (left_until IS NULL)
        ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED);
    DELETE FROM vibevoice.jobs WHERE id IN (
        SELECT id FROM vibevoice.jobs
        WHERE left_until < clock_timestamp() AND vibevoice.unattended_1(awaited_as)
        ORDER BY left_until LIMIT batch FOR UPDATE SKIP LOCKED)
    RETURNING extract(epoch FROM clock_timestamp() - CASE WHEN ended IS NULL THEN came END)::float8 $$;
