-- Which node has which follower of the ledger, so that each is at work once, however many nodes there are.
-- A lease saves work and never decides what is true: a follower's place moves in the transaction of what it
-- writes, so one that lost its lease unawares is turned away there.
create table follower_leases (
    -- Serves taking, renewing and giving up.
    name   text primary key,
    -- The node, by an id that it made when it started.
    owner  uuid not null,
    -- By the database's clock, so that the nodes' clocks don't matter.
    until  timestamptz not null,
    -- Up to where readers of other nodes wait for the follower; it doesn't rest before it is there.
    wanted bigint not null default 0
) with (fillfactor = 50);

grant select, insert, update on follower_leases to punchtrail_writer;
grant select on follower_leases to punchtrail_reader;
