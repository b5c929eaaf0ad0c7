-- What workers dispute here, from the commit that kept it to the day it may be forgotten. One waits while
-- status is null. An answer to one carries no time, so acked_ms is the first server_time told after it: never
-- too early.
CREATE TABLE dispute (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    identity        INTEGER NOT NULL REFERENCES identity (id),
    dispute         TEXT    NOT NULL UNIQUE,
    employee        TEXT    NOT NULL,
    punch           TEXT,                       -- one of the two is null
    day             TEXT,
    cause           TEXT    NOT NULL,
    text            TEXT    NOT NULL,
    made_at_ms      INTEGER NOT NULL,
    tries           INTEGER NOT NULL DEFAULT 0, -- how often not taken; the one least often goes first
    status          TEXT CHECK (status IN ('applied', 'duplicate', 'failed')),
    position        INTEGER,                    -- of the event that opened it
    code            TEXT,
    error_text      TEXT,
    acked_ms        INTEGER,
    acked_passed_ms INTEGER NOT NULL DEFAULT 0,
    CHECK ((punch IS NULL) <> (day IS NULL))
) STRICT;
-- The next one to send.
CREATE INDEX dispute_waiting ON dispute (identity, tries) WHERE status IS NULL;
-- A person's.
CREATE INDEX dispute_employee ON dispute (identity, employee);

-- Disputes fail for themselves, too. Which purposes there are the program knows: a list here would have to be
-- made anew for each.
CREATE TABLE failure_of (
    identity INTEGER NOT NULL REFERENCES identity (id) ON DELETE CASCADE,
    purpose  TEXT    NOT NULL,
    at_ms    INTEGER NOT NULL,
    code     TEXT    NOT NULL,
    text     TEXT    NOT NULL,
    times    INTEGER NOT NULL,                -- in a row
    PRIMARY KEY (identity, purpose)
) STRICT;
INSERT INTO failure_of SELECT identity, purpose, at_ms, code, text, times FROM failure ORDER BY rowid;
DROP TABLE failure;
ALTER TABLE failure_of RENAME TO failure;
