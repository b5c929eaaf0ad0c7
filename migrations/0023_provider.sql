-- Signing in by a provider of OpenID Connect, beside passwords.

-- By whom a user is vouched for: what that provider calls them for ever. One a user; nobody is two users.
create table user_identities (
    user_id uuid primary key,
    issuer  text not null,
    subject text not null,
    tied_at timestamptz not null default now(),
    -- Serves whoever comes from the provider.
    unique (issuer, subject)
);

-- Sign-ins that are under way, each good once and for ten minutes. What the provider is asked with (state, nonce,
-- PKCE) is made from the browser's token, of which only the digest is here.
create table provider_sign_ins (
    token_hash bytea primary key,
    -- Who is to be tied, where somebody who is signed in already asked for it.
    ties       uuid,
    -- Whom the provider vouched for, where a code of our own second factor is still wanted.
    vouched    uuid,
    expires_at timestamptz not null
);
-- Serves a user's end: kept out, erased, untied.
create index provider_sign_ins_vouched on provider_sign_ins (vouched) where vouched is not null;

-- Whether more than one factor was shown to whoever vouched for a session's begin: then none of ours is needed.
alter table sessions add column is_multi_factor boolean not null default false;

grant select, insert, update, delete on user_identities, provider_sign_ins to punchtrail_writer;
