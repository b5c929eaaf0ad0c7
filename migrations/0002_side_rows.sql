-- What stands beside the ledger and is written in the same transaction as the events it belongs to.

-- This deployment: its organisation, and the key that authenticates cursors.
create table deployment (
    only_row   boolean primary key default true check (only_row),
    org        uuid not null,
    cursor_key bytea not null check (length(cursor_key) = 32)
);

-- Every capture that came under a device's valid signature, whatever became of it.
create table device_chain (
    device   uuid not null,
    seq      bigint not null check (seq > 0),
    digest   bytea not null,
    prev     bytea not null,
    punch    uuid,
    position bigint not null,
    -- Serves: who held this number before (forks), and what fills the numbers beyond a gap.
    primary key (device, seq, digest)
);

-- How far each device's numbers are held without a hole, the highest held, and how many items of the
-- device are in quarantine (none, mostly, and then no item needs to be looked up there).
create table device_progress (
    device        uuid primary key,
    acked_through bigint not null,
    highest       bigint not null,
    quarantined   bigint not null
) with (fillfactor = 50);

-- The raw bytes of what could not be taken as a punch, as sent.
create table quarantine_items (
    id        bytea primary key,
    device    uuid not null,
    capture   text not null,
    signature text not null
);

-- Other bytes that came under a punch's id: evidence, kept once.
create table conflicting_captures (
    digest    bytea primary key,
    punch     uuid not null,
    capture   text not null,
    signature text not null
);

-- People's notes; events hold only a salted digest, so that a note can be erased.
create table notes (
    digest bytea primary key,
    salt   bytea not null,
    author text not null,
    body   text not null
);

-- Names, badges and PINs; erasable, and therefore not in the ledger.
create table employee_directory (
    employee    uuid primary key,
    badge       text unique,
    name        text not null,
    pin_phc     text,
    external_id text unique
);
create table site_directory (
    site uuid primary key,
    name text not null unique
);
create table device_directory (
    device uuid primary key,
    name   text not null
);

-- What a device's request is checked against: one look-up a request.
create table device_credentials (
    device      uuid primary key,
    token_hash  bytea not null unique,
    public_key  bytea not null,
    revoked_at  timestamptz
);
create table device_sites (
    device  uuid not null,
    site    uuid not null,
    -- The present site has the highest number.
    ordinal bigint generated always as identity,
    primary key (device, site)
);

-- Pairing codes and operators' keys, hashed.
create table pairing_codes (
    code_hash  bytea primary key,
    site       uuid not null,
    expires_at timestamptz not null,
    used_at    timestamptz
);
create table operator_keys (
    id         uuid primary key,
    key_hash   bytea not null unique,
    name       text not null,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);

-- What devices last said of themselves: current state, not history.
create table device_reports (
    device      uuid primary key,
    reported_at timestamptz not null,
    outbox      bigint not null,
    photos      bigint not null,
    oldest      timestamptz,
    seq         bigint not null,
    clock       timestamptz not null,
    boot        uuid not null,
    uptime_ms   bigint not null,
    app         text not null
) with (fillfactor = 50);

-- The latest heartbeat of each boot: what the true time of that boot's captures is told from.
create table device_boots (
    device      uuid not null,
    boot        uuid not null,
    server_time timestamptz not null,
    uptime_ms   bigint not null,
    primary key (device, boot)
) with (fillfactor = 50);

grant select, insert on deployment, device_chain, quarantine_items, conflicting_captures
    to punchtrail_writer;
grant select, insert, update on device_progress, device_credentials, device_reports, device_boots,
    pairing_codes, operator_keys to punchtrail_writer;
grant select, insert, update, delete on notes, employee_directory, site_directory, device_directory,
    device_sites to punchtrail_writer;
grant select on device_chain, device_progress, quarantine_items, conflicting_captures, notes,
    employee_directory, site_directory, device_directory, device_sites, device_reports, device_boots
    to punchtrail_reader;
-- Whoever ruled is named by the key's label; its hash stays out of the reader's sight.
grant select (id, name) on operator_keys to punchtrail_reader;
