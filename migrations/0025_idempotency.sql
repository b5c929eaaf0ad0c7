-- What a request with an Idempotency-Key was answered: written in the transaction of what it did, so that neither is
-- there without the other. While the request is at work its row has no status and runs out within seconds: it says
-- so to other nodes, and binds nobody.
create table kept_answers (
    caller text not null,
    -- SHA-256 of the key: it may be anything, a name for one.
    key bytea not null check (length(key) = 32),
    -- SHA-256 of the method, the path and the body.
    fingerprint bytea not null check (length(fingerprint) = 32),
    request text not null,
    status smallint,
    content_type text,
    -- Null, with a status, for an answer that is not kept: one with a secret in it.
    body bytea,
    -- Of the last event that it wrote; null if it wrote none.
    position bigint,
    expires_at timestamptz not null,
    primary key (caller, key)
);

-- What is over is swept.
create index kept_answers_expiry on kept_answers (expires_at);

grant select, insert, update, delete on kept_answers to punchtrail_writer;

-- As it was, and answers whose events are gone with the database's history are forgotten: what they say was done
-- has to be done again.
create or replace function set_back(after bigint) returns bigint language plpgsql security definer
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
    delete from public.kept_answers answer where answer.position > after and not exists (
        select from public.events event where event.position = answer.position
        and event.metadata ->> 'request' = answer.request
    );
    return rows_gone;
end $$;
