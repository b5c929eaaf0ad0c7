-- What a key may do, at which sites, until when. Null for all of it, as every key could until now.
alter table operator_keys
    add column scopes text[],
    add column sites uuid[],
    add column expires_at timestamptz;
