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
