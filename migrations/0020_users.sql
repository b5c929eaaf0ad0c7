-- People who sign in, what they may do, and by what they are known.
--
-- Names stand here and not in the ledger, so that they can be erased: events name a user by its id.
create table users (
    id           uuid primary key,
    -- What they sign in with, in lower case; null once they were erased.
    login        text unique,
    name         text,
    role         text not null check (role in ('admin', 'manager', 'auditor', 'payroll')),
    -- The worker who they are, if they are one: nobody rules on their own.
    employee     uuid unique,
    -- Argon2id, as a PHC string; null until their first link was used.
    password_phc text,
    -- The second factor's secret; one that waits to be confirmed; the last step a code was taken of,
    -- so that no code is good twice.
    totp_secret  bytea,
    totp_pending bytea,
    totp_step    bigint,
    created_at   timestamptz not null default now(),
    disabled_at  timestamptz,
    erased_at    timestamptz
);

-- A manager's sites.
create table user_sites (
    user_id uuid not null,
    site    uuid not null,
    -- Serves one user's.
    primary key (user_id, site)
);

-- What an admin settles for a role. Its row of `admin` is what changes of admins lock, one after the
-- other: two who demote each other at once must not leave none.
create table role_rules (
    role          text primary key,
    totp_required boolean not null default false
);
insert into role_rules (role) values ('admin'), ('manager'), ('auditor'), ('payroll');

-- The one link by which a password can be set. A new one voids the last.
create table user_links (
    user_id       uuid primary key,
    token_hash    bytea not null unique,
    -- Whether the second factor goes with the old password.
    clears_factor boolean not null,
    expires_at    timestamptz not null
);

-- Codes for when the second factor is lost, each good once.
create table recovery_codes (
    user_id   uuid not null,
    code_hash bytea not null,
    primary key (user_id, code_hash)
);

-- Who is signed in. Ended ones are gone from here; that they were is in the trail.
create table sessions (
    id         uuid primary key,
    token_hash bytea not null unique,
    user_id    uuid not null,
    created_at timestamptz not null default now(),
    -- To the minute.
    seen_at    timestamptz not null default now(),
    address    text,
    agent      text
);
-- Serves one user's: listed, and ended with a password or a role.
create index sessions_of_user on sessions (user_id, created_at);

-- Browsers from which a user has signed in: guesses that come from elsewhere don't keep them out.
create table known_browsers (
    token_hash bytea primary key,
    user_id    uuid not null,
    seen_at    timestamptz not null default now()
);
-- Serves one user's.
create index known_browsers_of_user on known_browsers (user_id, seen_at);

-- How often somebody failed lately: by address, by account, by browser, each as a digest.
create table sign_in_tries (
    bucket bytea primary key,
    since  timestamptz not null,
    tries  bigint not null
) with (fillfactor = 50);

-- Leave for an auditor to see names and photos: from whom, why, until when.
create table name_grants (
    id         uuid primary key,
    user_id    uuid not null,
    reason     text not null,
    granted_by text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    ended_at   timestamptz
);
-- Serves one user's.
create index name_grants_of_user on name_grants (user_id, expires_at);

grant select, insert, update on users, name_grants to punchtrail_writer;
grant select, update on role_rules to punchtrail_writer;
grant select, insert, update, delete on user_sites, user_links, recovery_codes, sessions, known_browsers,
    sign_in_tries to punchtrail_writer;
-- Whoever ruled is named; passwords and secrets stay out of the reader's sight.
grant select (id, name) on users to punchtrail_reader;
