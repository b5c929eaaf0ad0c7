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

grant select, insert, update, delete on loose_photos to punchtrail_writer;
grant select on loose_photos to punchtrail_reader;
grant delete on device_boots, pairing_codes to punchtrail_writer;

-- Badges, external ids and names of sites are kept in one spelling (Unicode's normal form C). Where
-- somebody has the other one already, both stay as they are until a person gives one a new one.
update employee_directory entry set badge = normalize(badge, nfc) where badge is not nfc normalized
    and not exists (select from employee_directory other where other.employee <> entry.employee
        and normalize(other.badge, nfc) = normalize(entry.badge, nfc));
update employee_directory entry set external_id = normalize(external_id, nfc)
    where external_id is not nfc normalized and not exists (select from employee_directory other
        where other.employee <> entry.employee
        and normalize(other.external_id, nfc) = normalize(entry.external_id, nfc));
update site_directory entry set name = normalize(name, nfc) where name is not nfc normalized
    and not exists (select from site_directory other where other.site <> entry.site
        and normalize(other.name, nfc) = normalize(entry.name, nfc));
