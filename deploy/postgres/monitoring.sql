-- What the shared jobs are doing (docs/journal.md). The role needs USAGE on the schema and SELECT on
-- the tables.

-- Jobs that have not ended, and the oldest of each state
SELECT state, count(*), count(claim) AS claimed, max(clock_timestamp() - came) AS oldest
FROM vibevoice.jobs WHERE ended IS NULL GROUP BY state;

-- Services: the heartbeat grows by one a second
SELECT s.id, s.works, s.draining, s.beat, count(j.id) AS claimed
FROM vibevoice.services s LEFT JOIN vibevoice.jobs j ON j.node = s.id GROUP BY s.id ORDER BY s.id;

-- Owners with open jobs, the least work first: that is the order between them
SELECT owner, count(*) FILTER (WHERE state = 'queued') AS waiting,
    count(*) FILTER (WHERE state = 'running') AS running, round(had_s) AS work_s
FROM vibevoice.jobs JOIN vibevoice.owners USING (owner) WHERE ended IS NULL
GROUP BY owner, had_s ORDER BY had_s;

-- Waiting jobs that all nodes refuse
SELECT job, owner, nodes, round(for_s) AS refused_s
FROM vibevoice.refused_1 JOIN vibevoice.jobs ON id = job ORDER BY for_s DESC;

-- Connections, and how long their transactions have lasted
SELECT client_addr, state, count(*), max(clock_timestamp() - xact_start) AS longest
FROM pg_stat_activity WHERE application_name = 'vibevoice-asr' GROUP BY client_addr, state;
