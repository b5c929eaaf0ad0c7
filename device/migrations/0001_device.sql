-- What a device keeps in its folder. Times are milliseconds since 1970 on the device's own clock
-- unless a comment says that the server said them; ids are lower-case UUIDs.

-- Who this device is: a row an enrolment, the highest id the current one. An earlier identity stays
-- until nothing of its is left here. seq and head are its capture chain's end, and move only together
-- with the capture they name.
CREATE TABLE identity (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    device         TEXT    NOT NULL UNIQUE,
    org            TEXT    NOT NULL,
    site           TEXT    NOT NULL,
    server         TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    token          TEXT    NOT NULL,
    signing_key    BLOB    NOT NULL CHECK (length(signing_key) = 32),
    enrolled_at_ms INTEGER NOT NULL,
    seq            INTEGER NOT NULL DEFAULT 0 CHECK (seq >= 0),
    head           BLOB    NOT NULL DEFAULT (zeroblob(32)) CHECK (length(head) = 32)
) STRICT;

-- What the server last told an identity, and how the last try went.
CREATE TABLE contact (
    identity            INTEGER PRIMARY KEY REFERENCES identity (id) ON DELETE CASCADE,
    acked_through       INTEGER NOT NULL DEFAULT 0,
    ledger              INTEGER NOT NULL DEFAULT 0,
    server_time_ms      INTEGER,             -- the server's clock at the last answer
    clock_ahead_ms      INTEGER,             -- device's clock less the server's, then
    reached             INTEGER NOT NULL DEFAULT 0, -- whether the last try got an answer
    reached_at_ms       INTEGER,
    reached_boot        TEXT,
    reached_uptime_ms   INTEGER,
    hold_boot           TEXT,                -- no try before this uptime of this boot
    hold_uptime_ms      INTEGER,
    error_at_ms         INTEGER,             -- the last failure since the last success; null: none
    error_code          TEXT,
    error_text          TEXT,
    policy              TEXT,                -- JSON, as the manifest gave it
    roster              TEXT                 -- version of the manifest that is held
) STRICT;

-- The outbox. A capture waits while acked_ms is null, and is forgotten when the server's clock has
-- moved on by the restore window since.
CREATE TABLE capture (
    identity       INTEGER NOT NULL REFERENCES identity (id),
    seq            INTEGER NOT NULL CHECK (seq >= 1),
    punch          TEXT    NOT NULL UNIQUE,
    bytes          BLOB    NOT NULL,
    signature      BLOB    NOT NULL CHECK (length(signature) = 64),
    captured_at_ms INTEGER NOT NULL,
    photo          TEXT,
    refused        INTEGER NOT NULL DEFAULT 0, -- how often refused when sent alone
    acked_ms       INTEGER,                    -- server_time of the answer that acknowledged it
    status         TEXT,
    code           TEXT,
    PRIMARY KEY (identity, seq)
) STRICT;
-- The next batch, oldest first; how much waits.
CREATE INDEX capture_waiting ON capture (identity, refused, seq) WHERE acked_ms IS NULL;
-- What may be forgotten.
CREATE INDEX capture_acked ON capture (identity, acked_ms) WHERE acked_ms IS NOT NULL;
-- Which captures hold a photo.
CREATE INDEX capture_photo ON capture (identity, photo) WHERE photo IS NOT NULL;

-- Photos in photos/<sha256>. An answer to a photo carries no time, so acked_ms is the first
-- server_time told after it was stored: never too early.
CREATE TABLE photo (
    identity   INTEGER NOT NULL REFERENCES identity (id),
    sha256     TEXT    NOT NULL,
    size_bytes INTEGER NOT NULL,
    media      TEXT    NOT NULL,
    stored     INTEGER NOT NULL DEFAULT 0,
    acked_ms   INTEGER,
    tries      INTEGER NOT NULL DEFAULT 0,    -- refusals; the least refused goes first
    lost       INTEGER NOT NULL DEFAULT 0,    -- the file is gone or damaged: can't be sent
    error_text TEXT,
    PRIMARY KEY (identity, sha256)
) STRICT;
-- The next photo to send.
CREATE INDEX photo_waiting ON photo (identity, tries) WHERE stored = 0 AND lost = 0;

-- Who works here.
CREATE TABLE manifest (
    identity  INTEGER NOT NULL REFERENCES identity (id) ON DELETE CASCADE,
    employee  TEXT    NOT NULL,
    badge     TEXT,
    name      TEXT    NOT NULL,
    pin_phc   TEXT,
    face      INTEGER NOT NULL,
    last_kind TEXT,
    PRIMARY KEY (identity, employee)
) STRICT;
-- Whose badge this is.
CREATE INDEX manifest_badge ON manifest (identity, badge) WHERE badge IS NOT NULL;

-- PIN guesses not yet found right, written before the PIN is looked at; bounds guessing.
CREATE TABLE pin_guess (
    id        INTEGER PRIMARY KEY,
    employee  TEXT    NOT NULL,
    boot      TEXT    NOT NULL,
    uptime_ms INTEGER NOT NULL
) STRICT;
