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
