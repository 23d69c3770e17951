-- Live sessions between two services: until one has taken them, or their time is over.
CREATE TABLE vibevoice.sessions (
    owner text NOT NULL,
    id text NOT NULL,
    until timestamptz NOT NULL,
    taker text,
    session bytea NOT NULL,
    PRIMARY KEY (owner, id));
