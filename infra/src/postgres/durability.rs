//! Refuses a database that could forget what it acknowledged.
//!
//! A punch is acknowledged after a commit, so a commit has to be on disk. Settings can be changed
//! for a server, a database, a role or a session, so they are read on every connection, not once.

use std::sync::Once;

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::error::PostgresError;

/// Reads every setting judged by [`verify`]; a select list, to be extended.
pub(super) const SELECT_LIST: &str = "\
    current_setting('fsync', true) as fsync, \
    current_setting('full_page_writes', true) as full_page_writes, \
    current_setting('synchronous_commit', true) as synchronous_commit, \
    current_setting('synchronous_standby_names', true) as synchronous_standby_names, \
    current_setting('server_encoding', true) as server_encoding";

/// Every connection is judged, and it is enough to say this once.
static REMOTE_WRITE_SAID: Once = Once::new();

/// What a setting must be, and how an operator gets it there.
struct Rule {
    setting: &'static str,
    accepted: &'static [&'static str],
    remedy: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        setting: "fsync",
        accepted: &["on"],
        remedy: "`alter system set fsync = on; select pg_reload_conf();`, and look for `-F` or \
                 `-c fsync=off` where the server is started",
    },
    Rule {
        setting: "full_page_writes",
        accepted: &["on"],
        remedy: "`alter system set full_page_writes = on; select pg_reload_conf();`, and look for \
                 `-c full_page_writes=off` where the server is started",
    },
    Rule {
        setting: "synchronous_commit",
        // Each of these waits for the local disk; the last three say how long to wait for standbys
        // besides (PostgreSQL documentation, 20.5.1).
        accepted: &["on", "local", "remote_write", "remote_apply"],
        remedy: SYNCHRONOUS_COMMIT_REMEDY,
    },
];
const SYNCHRONOUS_COMMIT_REMEDY: &str = "`alter system set synchronous_commit = on; select \
    pg_reload_conf();`, and look for it in `alter role`, `alter database`, PGOPTIONS and the URL's \
    options";

/// Judges a row that holds [`SELECT_LIST`].
///
/// # Errors
/// [`PostgresError::NotDurable`] names the first setting that is wrong, also when the server
/// doesn't know it; [`PostgresError::NotUtf8`].
pub(super) fn verify(row: &PgRow) -> Result<(), PostgresError> {
    let read = |name: &str| {
        row.try_get::<Option<String>, _>(name)
            .map_err(PostgresError::sql("read the durability settings"))
    };
    for rule in RULES {
        let value = read(rule.setting)?;
        if !value.as_deref().is_some_and(|value| rule.accepted.contains(&value)) {
            return Err(PostgresError::NotDurable {
                fault: "a power cut",
                setting: rule.setting,
                value: value.unwrap_or_else(|| "(unknown)".to_owned()),
                remedy: rule.remedy,
            });
        }
    }
    let standbys = read("synchronous_standby_names")?.is_some_and(|names| !names.trim().is_empty());
    let commit = read("synchronous_commit")?;
    match commit.as_deref().filter(|_| standbys) {
        Some("local") => {
            return Err(PostgresError::NotDurable {
                fault: "a failover (standbys are named in synchronous_standby_names, and no \
                        commit waits for them)",
                setting: "synchronous_commit",
                value: "local".to_owned(),
                remedy: SYNCHRONOUS_COMMIT_REMEDY,
            });
        }
        Some("remote_write") => REMOTE_WRITE_SAID.call_once(|| {
            tracing::warn!(
                "the database runs with synchronous_commit = remote_write: a standby acknowledges \
                 what its disk doesn't have yet, so a failover after a power cut of both could \
                 lose acknowledged punches; `on` waits for its disk"
            );
        }),
        _ => {}
    }
    match read("server_encoding")?.as_deref() {
        Some("UTF8") => Ok(()),
        other => Err(PostgresError::NotUtf8 { encoding: other.unwrap_or("(unknown)").to_owned() }),
    }
}

/// Judges the database behind a fresh connection: durable, UTF-8, and writable.
///
/// # Errors
/// Those of [`verify`], and [`PostgresError::Standby`].
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), PostgresError> {
    let select = format!("select pg_is_in_recovery() as standby, {SELECT_LIST}");
    let doing = "read the durability settings";
    let row =
        sqlx::query(&select).fetch_one(connection).await.map_err(PostgresError::sql(doing))?;
    verify(&row)?;
    if row.try_get("standby").map_err(PostgresError::sql(doing))? {
        return Err(PostgresError::Standby);
    }
    Ok(())
}
