-- The ledger: one table of events, append-only, in one dense order.
--
-- The first seven columns are postgres-es's, under its names, so that stock postgres-es reads any
-- aggregate from here. The last three are not null and have no default, so that nothing can be written
-- around the ledger. `payload` and `metadata` are json, not jsonb: json keeps the text as written, and
-- the text is what is hashed.
create table events (
    aggregate_type text collate "C" not null,
    aggregate_id   text collate "C" not null,
    sequence       bigint not null check (sequence > 0),
    event_type     text not null,
    event_version  text not null,
    payload        json not null,
    metadata       json not null,
    position       bigint not null check (position > 0),
    recorded_at    timestamptz not null,
    leaf_hash      bytea not null check (length(leaf_hash) = 32),
    -- Serves loading an aggregate, and the optimistic check of its next sequence.
    primary key (aggregate_type, aggregate_id, sequence)
);

-- Serves every follower: the next events after a position. Unique, so that two writers who both thought
-- they held the head could not both commit.
create unique index events_position on events (position);

-- The head: the one row that every append locks first. Its position is the number of events there are.
-- A low fillfactor keeps its updates on one page.
create table ledger_head (
    only_row    boolean primary key default true check (only_row),
    position    bigint not null check (position >= 0),
    recorded_at timestamptz not null
) with (fillfactor = 10);
insert into ledger_head (position, recorded_at) values (0, 'epoch');

-- Nobody changes what is written. ALWAYS, so that session_replication_role does not switch it off.
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the ledger is append-only: % on % is refused', tg_op, tg_table_name
        using errcode = 'insufficient_privilege';
end $$;
create trigger events_append_only before update or delete on events
    for each row execute function refuse_change();
create trigger events_no_truncate before truncate on events
    for each statement execute function refuse_change();
alter table events enable always trigger events_append_only;
alter table events enable always trigger events_no_truncate;

-- How far each follower of the ledger has come. Read models keep theirs beside their tables.
create table followers (
    name     text primary key,
    position bigint not null check (position >= 0)
) with (fillfactor = 50);

grant select, insert on events to punchtrail_writer;
grant select, update on ledger_head to punchtrail_writer;
grant select, insert, update on followers to punchtrail_writer;
grant select on events, ledger_head, followers to punchtrail_reader;
