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
