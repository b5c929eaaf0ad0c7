-- Who did what that bears on security, from where, when: sign-ins and failures, changes of keys, roles, grants
-- and sessions, looks at photos, exports, erasures. Added to and never changed, by role and by trigger, as the
-- ledger is. It holds ids and no names.
create table trail (
    id      bigint generated always as identity primary key,
    at      timestamptz not null default clock_timestamp(),
    -- As events name an actor; `nobody` for whoever isn't known.
    actor   text not null,
    act     text not null,
    -- What it was done to.
    subject text,
    address text,
    request text,
    -- Codes, never free text.
    detail  text,
    -- How many such there had been in that minute, where they are counted instead of kept one by one.
    count   bigint not null default 1
);
-- Serves what one person or key did, and what was done to one.
create index trail_of_actor on trail (actor, id);
create index trail_of_subject on trail (subject, id);
create index trail_of_act on trail (act, id);

create trigger trail_append_only before update or delete on trail
    for each row execute function refuse_change();
create trigger trail_no_truncate before truncate on trail
    for each statement execute function refuse_change();
alter table trail enable always trigger trail_append_only;
alter table trail enable always trigger trail_no_truncate;

grant select, insert on trail to punchtrail_writer;
grant select on trail to punchtrail_reader;
