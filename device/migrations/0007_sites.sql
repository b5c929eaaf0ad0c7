-- A device may be moved. identity.site is where it is now, by what the server said last; what is made under a
-- site goes there, wherever the device is by then. What was made before this was known was made at the one
-- site that there was.
ALTER TABLE capture ADD COLUMN site TEXT;
UPDATE capture SET site = (SELECT site FROM identity WHERE identity.id = capture.identity);
ALTER TABLE dispute ADD COLUMN site TEXT;
UPDATE dispute SET site = (SELECT site FROM identity WHERE identity.id = dispute.identity);

-- Whose people and policy are held: another site's than the identity's from when a move is heard of until the
-- new site's manifest is whole.
ALTER TABLE contact ADD COLUMN roster_site TEXT;
UPDATE contact SET roster_site = (SELECT site FROM identity WHERE identity.id = contact.identity)
WHERE policy IS NOT NULL;

-- When a salvage ended this identity's chain: it may lack numbers that were used, so none is given out again.
-- What it holds is delivered as before.
ALTER TABLE identity ADD COLUMN ended_at_ms INTEGER;
-- How many punches of it that a screen had confirmed could not be read then; null: nobody can know, or there was
-- no salvage.
ALTER TABLE identity ADD COLUMN unreadable INTEGER;
