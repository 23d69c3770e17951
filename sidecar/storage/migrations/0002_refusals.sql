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
