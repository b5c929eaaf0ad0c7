-- Which history the server's ledger has, as it said last: another one means that its database went back, and
-- what it was told since the histories parted waits again. The anchor is what it said under its seal, to be
-- said back to it.
ALTER TABLE contact ADD COLUMN epoch TEXT;
ALTER TABLE contact ADD COLUMN anchor TEXT;
-- What the server sealed of the enrolment; null where it was an earlier version.
ALTER TABLE identity ADD COLUMN certificate TEXT;
-- The ledger's head in the answer that acknowledged a capture; null where that wasn't noted.
ALTER TABLE capture ADD COLUMN acked_ledger INTEGER;
