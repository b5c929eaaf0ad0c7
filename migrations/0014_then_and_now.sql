-- Who held a badge when, what the adjudicator remembers of it, and what it looks at again.

-- Each time that somebody holds a badge. The ledger names it by the digest, SHA-256 of salt and number; the
-- number is erasable and stands here alone. Of one number no two times overlap.
create table badge_holdings (
    holding    bytea primary key,
    employee   uuid not null,
    number     text not null,
    salt       bytea not null,
    -- '-infinity' for one that was held before holdings were dated: no event says since when.
    held_from  timestamptz not null,
    -- Null while there is no end in sight.
    held_until timestamptz
);
-- Serves: who holds a badge, or held it.
create index badge_holdings_number on badge_holdings (number, held_from);
-- Serves: the badges of a person.
create index badge_holdings_employee on badge_holdings (employee);

insert into badge_holdings (holding, employee, number, salt, held_from)
select sha256(salt || convert_to(badge, 'UTF8')), employee, badge, salt, '-infinity'
from (select employee, badge, decode(replace(gen_random_uuid()::text, '-', ''), 'hex') as salt
      from employee_directory where badge is not null) held;

grant select, insert, update, delete on badge_holdings to punchtrail_writer;
grant select on badge_holdings to punchtrail_reader;

-- The adjudicator remembers punches by their true time, those of nobody known by their badge, and which are
-- out of the count, so that no doubt rests on them.
alter table judged_punches rename column captured_at to true_at;
alter table judged_punches rename column voided to is_out;
alter table judged_punches
    alter column employee drop not null,
    add column badge text,
    add column opposite_kind boolean not null default false;
-- Serves: the punches of a badge that was nobody's.
create index judged_punches_badge on judged_punches (badge, true_at) where employee is null;

-- Those that were rejected were remembered as if they counted.
update judged_punches judged set is_out = true
from (select aggregate_id from events where aggregate_type = 'punch'
      and event_type in ('Voided', 'Rejected', 'Reinstated', 'Accepted')
      and position <= (select position from followers where name = 'adjudicator')
      group by aggregate_id
      having max(position) filter (where event_type in ('Voided', 'Rejected'))
          > coalesce(max(position) filter (where event_type in ('Reinstated', 'Accepted')), 0)) ruled
where judged.punch::text = ruled.aggregate_id and not is_out;

-- Those of unknown badges that were judged before they were remembered.
insert into judged_punches (punch, employee, true_at, site, kind, is_out, badge)
select captured.aggregate_id::uuid, null, (capture ->> 'captured_at')::timestamptz,
    (capture ->> 'site')::uuid, capture ->> 'kind', false, normalize(capture ->> 'badge', NFC)
from (select distinct aggregate_id from events
      where aggregate_type = 'punch' and event_type = 'AnomalyFlagged'
      and payload -> 'AnomalyFlagged' -> 'anomaly' ->> 'code' = 'unknown_badge') flagged
join lateral (select aggregate_id, (payload -> 'Captured' ->> 'capture')::json as capture
      from events where aggregate_type = 'punch' and aggregate_id = flagged.aggregate_id
      and sequence = 1 and event_type = 'Captured') captured on true;

-- Punches to be looked at again before the adjudicator goes on: what their judgement rests on has changed.
create table judged_again (
    punch uuid primary key
);
grant select, insert, delete on judged_again to punchtrail_writer;
grant select on judged_again to punchtrail_reader;

create or replace function forget_judged() returns void language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    truncate public.judged_punches, public.judged_devices, public.judged_again;
    update public.followers set position = 0, leaf_hash = null where name = 'adjudicator';
end $$;
