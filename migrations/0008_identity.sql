-- Checks of faces: where the followers that feed and erase stand, and what is kept beside the ledger of
-- people's faces. All of it can be erased.

insert into followers (name, position) values ('checks', 0), ('erasures', 0);

-- A head covering, worn for faith or health, is expected on this person's pictures.
alter table employee_directory add column head_covering boolean not null default false;

-- Codes by which one person's reference photos are taken at a kiosk, hashed.
create table reference_codes (
    code_hash  bytea primary key check (length(code_hash) = 32),
    employee   uuid not null,
    expires_at timestamptz not null
);
-- Serves forgetting those that nobody can use.
create index reference_codes_expires_at on reference_codes (expires_at);

-- What a model made of a reference photo, under the key of the node that made it: a cache, so that the
-- photo needn't be looked at again for each check.
create table reference_embeddings (
    photo  bytea not null check (length(photo) = 32),
    model  text not null,
    -- Names the key, which stands outside of the database.
    key_id bytea not null,
    sealed bytea not null,
    -- Serves one check.
    primary key (photo, model, key_id)
);

-- Who looked at which photo: written before anybody sees it, and never changed.
create table photo_reads (
    id      bigint generated always as identity primary key,
    photo   bytea not null check (length(photo) = 32),
    reader  text not null,
    -- The request, for the operator's log.
    request text,
    read_at timestamptz not null default now()
);
-- Serves who looked at one.
create index photo_reads_photo on photo_reads (photo, id);

grant select, insert, delete on reference_codes, reference_embeddings to punchtrail_writer;
grant select, insert on photo_reads to punchtrail_writer;
grant select on photo_reads to punchtrail_reader;
