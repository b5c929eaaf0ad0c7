-- A person may hold several badges.
DROP INDEX manifest_badge;
CREATE TABLE manifest_badge (
    identity INTEGER NOT NULL REFERENCES identity (id) ON DELETE CASCADE,
    badge    TEXT    NOT NULL,
    employee TEXT    NOT NULL,
    -- Whose badge this is; of two people when it changes hands soon.
    PRIMARY KEY (identity, badge, employee)
) STRICT, WITHOUT ROWID;
INSERT INTO manifest_badge (identity, badge, employee)
SELECT identity, badge, employee FROM manifest WHERE badge IS NOT NULL;
ALTER TABLE manifest DROP COLUMN badge;
-- The others come with the manifest, which is walked anew for them.
UPDATE contact SET roster = NULL;
