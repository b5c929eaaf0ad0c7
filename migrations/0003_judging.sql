-- What the adjudicator knows of the ledger up to its own position; moved with its judgements, in one
-- transaction.

-- Every punch walked so far whose person is known.
create table judged_punches (
    punch       uuid not null,
    employee    uuid not null,
    captured_at timestamptz not null,
    site        uuid not null,
    kind        text not null,
    voided      boolean not null
);
-- Serves: the neighbours of a punch, the same person's within a time of it.
create index judged_punches_neighbours on judged_punches (employee, captured_at);

-- How far each device's chain was walked: its highest number, the digest of the capture that holds it,
-- and the numbers below that never came, as from and to in turn.
create table judged_devices (
    device  uuid primary key,
    highest bigint not null,
    digest  bytea not null,
    gaps    bigint[] not null
) with (fillfactor = 50);

grant select, insert, update on judged_punches, judged_devices to punchtrail_writer;
grant select on judged_punches, judged_devices to punchtrail_reader;

insert into followers (name, position) values ('adjudicator', 0);

-- Read models live in a schema of their own, owned by the role that only selects from the ledger.
create schema read authorization punchtrail_reader;
