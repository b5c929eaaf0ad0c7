-- The server's public key that photos are sealed to (base64url), as it was told last; null where none was.
ALTER TABLE contact ADD COLUMN photo_key TEXT;
-- It comes with the manifest, which is walked anew for it.
UPDATE contact SET roster = NULL;

-- Whether the photo's file holds it sealed: photos/<sha256>.<identity>.sealed rather than photos/<sha256>.
-- sha256 is of the plain bytes either way, size_bytes of the file.
ALTER TABLE photo ADD COLUMN sealed INTEGER NOT NULL DEFAULT 0;
-- When it was erased because its person is to be forgotten, by the device's clock; then it counts as lost.
ALTER TABLE photo ADD COLUMN erased_at_ms INTEGER;
-- What is to be sealed.
CREATE INDEX photo_unsealed ON photo (identity) WHERE sealed = 0 AND lost = 0;

-- Retakes: further pictures for a punch, signed like it. One waits while status is null. An answer to one
-- carries no time, so acked_ms is the first server_time told after it: never too early.
CREATE TABLE attachment (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    identity        INTEGER NOT NULL REFERENCES identity (id),
    punch           TEXT    NOT NULL,
    attempt         INTEGER NOT NULL CHECK (attempt >= 1),
    bytes           BLOB    NOT NULL,
    signature       BLOB    NOT NULL CHECK (length(signature) = 64),
    photo           TEXT    NOT NULL,
    tries           INTEGER NOT NULL DEFAULT 0, -- how often not taken; the one least often goes first
    status          TEXT CHECK (status IN ('applied', 'duplicate', 'failed')),
    position        INTEGER,                    -- of the event that recorded it
    code            TEXT,
    error_text      TEXT,
    acked_ms        INTEGER,
    acked_passed_ms INTEGER NOT NULL DEFAULT 0,
    UNIQUE (identity, punch, attempt)
) STRICT;
-- The next one to send.
CREATE INDEX attachment_waiting ON attachment (identity, tries) WHERE status IS NULL;
-- Which hold a photo.
CREATE INDEX attachment_photo ON attachment (identity, photo);

-- Attachments fail for themselves, too.
CREATE TABLE failure_of (
    identity INTEGER NOT NULL REFERENCES identity (id) ON DELETE CASCADE,
    purpose  TEXT    NOT NULL
             CHECK (purpose IN ('heartbeat', 'manifest', 'punches', 'attachments', 'photos')),
    at_ms    INTEGER NOT NULL,
    code     TEXT    NOT NULL,
    text     TEXT    NOT NULL,
    times    INTEGER NOT NULL,                -- in a row
    PRIMARY KEY (identity, purpose)
) STRICT;
INSERT INTO failure_of SELECT identity, purpose, at_ms, code, text, times FROM failure ORDER BY rowid;
DROP TABLE failure;
ALTER TABLE failure_of RENAME TO failure;
