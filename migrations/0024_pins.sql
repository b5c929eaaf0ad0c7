-- When a PIN was set (null: before this was noted), and since when its holder is asked for another: a device that
-- held its hash was revoked, and whoever has that can guess it.
alter table employee_directory
    add column pin_set_at timestamptz,
    add column pin_renewal_asked_at timestamptz;
