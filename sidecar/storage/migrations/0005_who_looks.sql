-- A node says once that it is there; who looks at the jobs that wait is one of them.
DROP TABLE vibevoice.surveyors;

ALTER TABLE vibevoice.nodes ADD COLUMN looked boolean NOT NULL DEFAULT false;

CREATE FUNCTION vibevoice.there(seen timestamptz, alive_s double precision)
    RETURNS boolean STABLE LANGUAGE sql
    RETURN seen > clock_timestamp() - make_interval(secs => alive_s);
