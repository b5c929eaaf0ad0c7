-- What devices say grows tables: limits, and sweeping where nothing is lost by it.

-- Photos that no punch names: sent before their punch, or for none. A row goes once a punch names
-- the photo; the photo itself when none has for long.
create table loose_photos (
    photo   bytea primary key check (length(photo) = 32),
    device  uuid not null,
    bytes   bigint not null check (bytes >= 0),
    came_at timestamptz not null default now()
);
-- Serves how many a device has, and which.
create index loose_photos_device on loose_photos (device);
-- Serves the oldest.
create index loose_photos_came_at on loose_photos (came_at);

-- Serves how much of a device is in quarantine.
create index quarantine_items_device on quarantine_items (device);

grant select, insert, delete on loose_photos to punchtrail_writer;
grant select on loose_photos to punchtrail_reader;
grant delete on device_boots, pairing_codes to punchtrail_writer;
