//! Every table of the schema: what it is to whoever doubts the ledger, what the two roles may do
//! with it, and what may stand in it once. docs/ledger-format.md has the same list with reasons; a
//! test holds both against a migrated database, so that a new table finds its place here.

use sqlx::{PgConnection, PgExecutor};

/// What a table is to whoever doubts the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It holds what nothing else says, and what would betray an alteration.
    Proof,
    /// It follows from what proves, and is compared with it.
    Derived,
    /// Nothing in the ledger says what must stand there.
    Neither,
}

/// A table of the schema, as the migrations make it.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub class: Class,
    /// What the writing role may do, as Postgres abbreviates it (PostgreSQL manual, 5.7): `r`ead,
    /// `a`ppend, `w`rite, `d`elete.
    pub writer: &'static str,
    /// What the reading role may do.
    pub reader: &'static str,
    /// The columns of each of its keys.
    pub keys: &'static [&'static str],
}

const fn table(
    name: &'static str,
    class: Class,
    (writer, reader): (&'static str, &'static str),
    keys: &'static [&'static str],
) -> Table {
    Table { name, class, writer, reader, keys }
}

/// All of them but the read models', which belong to whoever keeps those.
pub const TABLES: &[Table] = {
    use Class::{Derived, Neither, Proof};
    &[
        table("_sqlx_migrations", Neither, ("", ""), &["version"]),
        table("badge_holdings", Proof, ("rawd", "r"), &["holding"]),
        table("call_windows", Neither, ("rawd", ""), &["kind,caller"]),
        table("check_dead_letters", Neither, ("rawd", "r"), &["punch"]),
        table("check_queue", Neither, ("rawd", "r"), &["punch"]),
        table("conflicting_captures", Proof, ("ra", "r"), &["digest"]),
        table("deployment", Derived, ("ra", ""), &["only_row"]),
        table("device_boots", Neither, ("rawd", "r"), &["device,boot"]),
        table("device_chain", Derived, ("ra", "r"), &["device,seq,digest"]),
        table("device_credentials", Derived, ("raw", ""), &["device", "token_hash"]),
        table("device_directory", Neither, ("rawd", "r"), &["device"]),
        table("device_progress", Derived, ("raw", "r"), &["device"]),
        table("device_reports", Neither, ("raw", "r"), &["device"]),
        table("device_sites", Derived, ("rawd", "r"), &["device,site"]),
        table("employee_directory", Neither, ("rawd", "r"), &["employee", "external_id"]),
        table("events", Proof, ("ra", "r"), &["aggregate_type,aggregate_id,sequence", "position"]),
        table("follower_leases", Neither, ("raw", "r"), &["name"]),
        table("followers", Derived, ("raw", "r"), &["name"]),
        table("judged_again", Derived, ("rad", "r"), &["punch"]),
        table("judged_devices", Derived, ("raw", "r"), &["device"]),
        table("judged_punches", Derived, ("raw", "r"), &[]),
        table("kept_answers", Neither, ("rawd", ""), &["caller,key"]),
        table("known_browsers", Neither, ("rawd", ""), &["token_hash"]),
        table("ledger_head", Derived, ("rw", "r"), &["only_row"]),
        table("loose_photos", Neither, ("rawd", "r"), &["photo"]),
        table("mails", Neither, ("rawd", ""), &["id"]),
        table("name_grants", Neither, ("raw", ""), &["id"]),
        table("notes", Proof, ("rawd", "r"), &["digest"]),
        table("operator_keys", Neither, ("raw", ""), &["id", "key_hash"]),
        table("pairing_codes", Neither, ("rawd", ""), &["code_hash"]),
        table("photo_reads", Neither, ("ra", "r"), &["id"]),
        table("provider_sign_ins", Neither, ("rawd", ""), &["token_hash"]),
        table("quarantine_items", Proof, ("ra", "r"), &["id"]),
        table("recovery_codes", Neither, ("rawd", ""), &["user_id,code_hash"]),
        table("reference_codes", Neither, ("rad", ""), &["code_hash"]),
        table("reference_embeddings", Neither, ("rad", ""), &["photo,model,key_id"]),
        table("role_rules", Neither, ("rw", ""), &["role"]),
        table("sessions", Neither, ("rawd", ""), &["id", "token_hash"]),
        table("sign_in_tries", Neither, ("rawd", ""), &["bucket"]),
        table("site_directory", Neither, ("rawd", "r"), &["site", "name"]),
        table("trail", Neither, ("ra", "r"), &["id"]),
        table("user_identities", Neither, ("rawd", ""), &["issuer,subject", "user_id"]),
        table("user_links", Neither, ("rawd", ""), &["token_hash", "user_id"]),
        table("user_sites", Neither, ("rawd", ""), &["user_id,site"]),
        table("users", Neither, ("raw", ""), &["employee", "id", "login"]),
        table("webhook_deliveries", Neither, ("rawd", ""), &["endpoint,event", "id"]),
        table("webhook_endpoints", Neither, ("rawd", ""), &["id"]),
        table("webhook_events", Neither, ("rawd", "r"), &["id", "position"]),
        table("webhook_redeliveries", Neither, ("rawd", ""), &["id"]),
        table("webhook_secrets", Neither, ("rawd", ""), &["id"]),
        table("webhook_tries", Neither, ("rawd", ""), &["id"]),
    ]
};

/// Columns that the reading role may read of tables that it may not.
pub(super) const READABLE_COLUMNS: [(&str, &[&str]); 2] =
    [("operator_keys", &["id", "name"]), ("users", &["id", "name"])];

/// Their names.
pub(super) fn names() -> Vec<&'static str> {
    TABLES.iter().map(|table| table.name).collect()
}

/// The tables that stand in the schema of the ledger.
///
/// # Errors
/// When the database is out of reach.
pub async fn standing(executor: impl PgExecutor<'_>) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select relname::text from pg_class where relkind in ('r', 'p', 'f') and relnamespace = \
         (select relnamespace from pg_class where oid = 'events'::regclass) order by relname",
    )
    .fetch_all(executor)
    .await
}

/// The keys that stand, as a table and its columns: unique indexes over whole tables that are
/// valid.
pub(super) async fn keys(
    connection: &mut PgConnection,
) -> Result<Vec<(String, String)>, sqlx::Error> {
    sqlx::query_as(
        "select owning.relname::text, (select string_agg(attname::text, ',' order by place) \
             from unnest(index.indkey) with ordinality as of (attnum, place) \
             join pg_attribute attribute on attrelid = indrelid \
             and attribute.attnum = of.attnum where place <= indnkeyatts) \
         from pg_index index join pg_class owning on owning.oid = indrelid \
         where owning.relname = any($1) and owning.relnamespace = \
             (select relnamespace from pg_class where oid = 'events'::regclass) \
         and indisunique and indisvalid and indimmediate and indislive and indpred is null \
         and indexprs is null order by 1, 2",
    )
    .bind(names())
    .fetch_all(connection)
    .await
}
