-- Commands of the server: a row before anything is done, so that none is acted on twice. One waits to be
-- acted on while status is null, and its result waits to be told while told is 0. A row is kept for longer
-- than the server would give the command again.
CREATE TABLE command (
    id            INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order they came
    identity      INTEGER NOT NULL REFERENCES identity (id) ON DELETE CASCADE,
    command       TEXT    NOT NULL,
    type          TEXT    NOT NULL,
    args          TEXT    NOT NULL,                  -- JSON; of a message that expired nothing is left
    expires_at_ms INTEGER NOT NULL,                  -- by the server's clock
    status        TEXT CHECK (status IN ('done', 'failed', 'refused')),
    detail        TEXT,
    told          INTEGER NOT NULL DEFAULT 0,
    UNIQUE (identity, command)
) STRICT;
-- What is to be done, and to be told.
CREATE INDEX command_open ON command (identity, id) WHERE told = 0;

-- Commands fail for themselves, too.
CREATE TABLE failure_of (
    identity INTEGER NOT NULL REFERENCES identity (id) ON DELETE CASCADE,
    purpose  TEXT    NOT NULL CHECK (purpose IN
             ('heartbeat', 'manifest', 'commands', 'punches', 'attachments', 'photos')),
    at_ms    INTEGER NOT NULL,
    code     TEXT    NOT NULL,
    text     TEXT    NOT NULL,
    times    INTEGER NOT NULL,                       -- in a row
    PRIMARY KEY (identity, purpose)
) STRICT;
INSERT INTO failure_of SELECT identity, purpose, at_ms, code, text, times FROM failure ORDER BY rowid;
DROP TABLE failure;
ALTER TABLE failure_of RENAME TO failure;
