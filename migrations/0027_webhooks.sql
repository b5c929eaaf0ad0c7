-- Webhooks: what integrators are told of the ledger, whom it is told, and how far that has come. And mail, which goes
-- out by a table.

insert into followers (name, position) values ('webhooks', 0);

-- What is told of events of the ledger, one an event: the very bytes that are signed and sent, and that who fills
-- gaps is given. Of a test event there is no position.
create table webhook_events (
    id       text primary key,
    -- Serves who fills gaps, and who is to be told from a position on.
    position bigint unique,
    type     text not null,
    -- Of which sites it is; none for what is of no site.
    sites    uuid[] not null,
    employee uuid,
    -- What stands in the body: taken out of it when the person is erased.
    external_id text,
    body     text not null,
    at       timestamptz not null
);
-- Serves a range of time.
create index webhook_events_at on webhook_events (at);
-- Serves the erasure of a person.
create index webhook_events_employee on webhook_events (employee) where external_id is not null;

-- Whom it is told.
create table webhook_endpoints (
    id          uuid primary key,
    name        text not null,
    url         text not null,
    -- Of what; null for everything.
    types       text[],
    -- Of which sites; null for all.
    sites       uuid[],
    -- Whom to write to when it fails.
    contact     text,
    -- Events after this position are told it as they come; those before by a job.
    starts_after bigint not null,
    made_at     timestamptz not null,
    changed_at  timestamptz not null,
    -- Since when it is told nothing, and why; where the ledger stood then.
    disabled_at timestamptz,
    disabled_because text check (disabled_because in ('person', 'gone', 'failing')),
    disabled_after bigint,
    -- Since when nothing but failures came, and how many.
    failing_since timestamptz,
    failures    integer not null default 0,
    last_error  text,
    succeeded_at timestamptz,
    -- Up to when failures were told to its contact.
    mailed_at   timestamptz,
    -- It is gone; what is kept of it is swept.
    removed_at  timestamptz,
    check ((disabled_at is null) = (disabled_because is null))
);

-- By what its deliveries are signed, sealed under a key that stands outside of the database.
create table webhook_secrets (
    id         uuid primary key,
    endpoint   uuid not null references webhook_endpoints on delete cascade,
    key_id     bytea not null check (length(key_id) = 8),
    sealed     bytea not null,
    made_at    timestamptz not null,
    -- From when on it signs nothing: it was followed by another.
    expires_at timestamptz
);
-- Serves signing.
create index webhook_secrets_endpoint on webhook_secrets (endpoint);

-- What is to be told, and what was: the queue and the log in one. One of an endpoint and an event, however often it
-- is sent.
create table webhook_deliveries (
    id          bigint generated always as identity primary key,
    endpoint    uuid not null,
    event       text not null,
    position    bigint,
    state       text not null default 'pending' check (state in ('pending', 'delivered', 'failed')),
    -- Tries since it was last put in line.
    tries       integer not null default 0,
    due_at      timestamptz not null,
    -- Which node sends it now, and until when nobody else does.
    leased_by   uuid,
    leased_until timestamptz,
    made_at     timestamptz not null,
    finished_at timestamptz,
    status      integer,
    error       text,
    -- Serves putting what is told again back in line.
    unique (endpoint, event)
) with (fillfactor = 80);
-- Serves the queue.
create index webhook_deliveries_due on webhook_deliveries (endpoint, due_at) where state = 'pending';
-- Serves the log.
create index webhook_deliveries_log on webhook_deliveries (endpoint, id);
-- Serves what is told of failures.
create index webhook_deliveries_failed on webhook_deliveries (endpoint, finished_at) where state = 'failed';
-- Serves sweeping.
create index webhook_deliveries_finished on webhook_deliveries (finished_at) where state <> 'pending';
-- Serves a node that starts again.
create index webhook_deliveries_leased on webhook_deliveries (leased_by) where leased_by is not null;

-- Each try: what was asked, and what came back.
create table webhook_tries (
    id          bigint generated always as identity primary key,
    delivery    bigint not null,
    number      integer not null,
    at          timestamptz not null,
    took_ms     integer not null,
    url         text not null,
    status      integer,
    error       text,
    headers     text,
    answer      text
);
-- Serves the log.
create index webhook_tries_delivery on webhook_tries (delivery, id);
-- Serves sweeping.
create index webhook_tries_at on webhook_tries (at);

-- What is to be told again, or from an earlier position on: done in steps, by whichever node has the time.
create table webhook_redeliveries (
    id          uuid primary key,
    endpoint    uuid not null references webhook_endpoints on delete cascade,
    -- What has come already is sent again, too; else only what failed or was never in line.
    everything  boolean not null,
    -- Events after the one and up to the other; where it stands.
    after       bigint not null,
    up_to       bigint not null,
    reached     bigint not null,
    count       bigint not null default 0,
    made_at     timestamptz not null,
    finished_at timestamptz
);
-- Serves who does them.
create index webhook_redeliveries_open on webhook_redeliveries (made_at) where finished_at is null;

-- Mails that are to be sent.
create table mails (
    id         bigint generated always as identity primary key,
    recipient  text not null,
    subject    text not null,
    body       text not null,
    made_at    timestamptz not null,
    due_at     timestamptz not null,
    tries      integer not null default 0,
    error      text
);
-- Serves who sends them.
create index mails_due on mails (due_at);

grant select, insert, update, delete on webhook_events, webhook_endpoints, webhook_secrets, webhook_deliveries,
    webhook_tries, webhook_redeliveries, mails to punchtrail_writer;
grant select on webhook_events to punchtrail_reader;

-- As it was, and what was told of events that are gone is forgotten: their positions are given out again.
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
    delete from public.webhook_events told where told.position > after and not exists (
        select from public.events event where event.position = told.position and event.recorded_at = told.at
    );
    update public.followers set position = least(position, after) where name = 'webhooks';
    return rows_gone;
end $$;
