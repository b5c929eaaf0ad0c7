-- How long the server has surely had what it acknowledged. A clock may leap, the server's or the device's, so
-- neither counts alone: from one answer to the next as much time has passed as all clocks agree on
-- (store/passed.rs). passed_ms adds that up; read_* are the clocks at the last answer that carried a time.
ALTER TABLE contact ADD COLUMN passed_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE contact ADD COLUMN read_server_ms INTEGER;
ALTER TABLE contact ADD COLUMN read_wall_ms INTEGER;
ALTER TABLE contact ADD COLUMN read_boot TEXT;
ALTER TABLE contact ADD COLUMN read_uptime_ms INTEGER;
-- passed_ms when it was acknowledged. What was acknowledged before this was counted starts to count now.
ALTER TABLE capture ADD COLUMN acked_passed_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE photo ADD COLUMN acked_passed_ms INTEGER NOT NULL DEFAULT 0;
DROP INDEX capture_acked;
-- What may be forgotten.
CREATE INDEX capture_acked ON capture (identity, acked_ms, acked_passed_ms) WHERE acked_ms IS NOT NULL;

-- The ledger's head as told first after a photo was stored; null where it wasn't told.
ALTER TABLE photo ADD COLUMN acked_ledger INTEGER;
-- How often a photo was sent and got no answer of its own: one that breaks the line goes behind the others.
ALTER TABLE photo ADD COLUMN stalled INTEGER NOT NULL DEFAULT 0;
DROP INDEX photo_waiting;
-- The next photo to send.
CREATE INDEX photo_waiting ON photo (identity, tries + stalled) WHERE stored = 0 AND lost = 0;

-- What goes wrong now, by what the call was for, until such a call goes well: a heartbeat that is answered
-- says nothing of batches that aren't.
CREATE TABLE failure (
    identity INTEGER NOT NULL REFERENCES identity (id) ON DELETE CASCADE,
    purpose  TEXT    NOT NULL CHECK (purpose IN ('heartbeat', 'manifest', 'punches', 'photos')),
    at_ms    INTEGER NOT NULL,
    code     TEXT    NOT NULL,
    text     TEXT    NOT NULL,
    times    INTEGER NOT NULL,                -- in a row
    PRIMARY KEY (identity, purpose)
) STRICT;
INSERT INTO failure (identity, purpose, at_ms, code, text, times)
SELECT identity, 'heartbeat', error_at_ms, coalesce(error_code, ''), coalesce(error_text, ''), 1
FROM contact WHERE error_at_ms IS NOT NULL;
ALTER TABLE contact DROP COLUMN error_at_ms;
ALTER TABLE contact DROP COLUMN error_code;
ALTER TABLE contact DROP COLUMN error_text;

-- Badges are kept in one normal form from here on: the manifest is walked anew.
UPDATE contact SET roster = NULL;
