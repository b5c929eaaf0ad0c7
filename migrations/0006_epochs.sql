-- The ledger's epoch: by which every node and device notices that the database went back (a standby that was
-- behind, a point-in-time restore). A new one begins with an `Opened` event of the aggregate `epoch`, at the
-- first commit after somebody noticed.
alter table ledger_head add column epoch uuid not null default gen_random_uuid();
alter table ledger_head alter column epoch drop default;

-- The hash of the event that a follower stands at: with it a place beyond the head, or in a history that is
-- gone, is told from one that stands. Null where it was never noted.
alter table followers add column leaf_hash bytea check (length(leaf_hash) = 32);

-- Puts the rows beside the ledger back to what its events say, after the database went back in part (its
-- events were cut off, say, and the tables beside them were not). `after` is where the histories parted. All
-- that is touched here is derived from events; the writer has no right to delete it otherwise.
create function set_back(after bigint) returns bigint language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    touched uuid[];
    rows_gone bigint;
begin
    -- Rows of chains whose events are gone, and with them how far the devices' numbers are held.
    with gone as (
        delete from public.device_chain chain where chain.position > after and not exists (
            select from public.events event where event.position = chain.position
            and (event.aggregate_type, event.aggregate_id) in
                (('punch', chain.punch::text), ('quarantine', event.aggregate_id))
        ) returning chain.device
    )
    select array_agg(distinct device), count(*) from gone into touched, rows_gone;
    update public.device_progress progress set
        acked_through = coalesce(held.through, 0),
        highest = coalesce(held.highest, 0),
        quarantined = (
            select count(*) from public.quarantine_items item where item.device = progress.device
            and exists (select from public.events event where event.aggregate_type = 'quarantine'
                and event.aggregate_id = encode(item.id, 'hex') and event.sequence = 1)
        )
    from unnest(touched) as one (device) left join lateral (
        select max(seq) filter (where seq = place) as through, max(seq) as highest from (
            select seq, row_number() over (order by seq) as place from (
                select distinct seq from public.device_chain chain where chain.device = one.device
            ) as numbers
        ) as numbered
    ) as held on true
    where progress.device = one.device;
    -- Devices that the ledger doesn't know find their way back by what they were given at enrolment.
    delete from public.device_credentials credential where not exists (
        select from public.events event where event.aggregate_type = 'device'
        and event.aggregate_id = credential.device::text
    );
    return rows_gone;
end $$;

-- Lets the adjudicator forget what it knew, when it stood in a history that is gone: it walks the ledger anew.
create function forget_judged() returns void language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    truncate public.judged_punches, public.judged_devices;
    update public.followers set position = 0, leaf_hash = null where name = 'adjudicator';
end $$;

revoke execute on function set_back(bigint), forget_judged() from public;
grant execute on function set_back(bigint), forget_judged() to punchtrail_writer;

-- The hash stands in the index, too: what is signed is the hashes, and whether an event stands is asked in every
-- append and by every follower; neither needs the events' rows.
create unique index events_place on events (position) include (leaf_hash);
drop index events_position;
alter index events_place rename to events_position;
