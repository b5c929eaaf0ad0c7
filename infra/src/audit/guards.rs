//! What guards the ledger inside the database: the triggers that refuse every change, keys, rights
//! and settings. None of it proves anything, since a superuser may take it away and put it back;
//! found away, it says that somebody did.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgConnection, Row as _};

use crate::postgres::roles::{READER, WRITER};

use super::{
    report::{Finding, FindingCode, Findings},
    tables::{self, READABLE_COLUMNS, TABLES},
};

/// The function that refuses a change is the only one in it.
const FIRST_MIGRATION: &str = include_str!("../../../migrations/0001_ledger.sql");
const REFUSE: &str = "refuse_change";
/// The triggers, on which table, and what fires them (`pg_trigger.tgtype`): before each row's
/// update or delete, before a truncation.
const TRIGGERS: [(&str, &str, i16); 4] = [
    ("events_append_only", "events", 27),
    ("events_no_truncate", "events", 34),
    ("trail_append_only", "trail", 27),
    ("trail_no_truncate", "trail", 34),
];

/// Settings of a session that the ledger rests on, and what each may be.
const SETTINGS: &[(&str, &[&str])] = &[
    ("fsync", &["on"]),
    ("full_page_writes", &["on"]),
    ("ignore_checksum_failure", &["off"]),
    ("session_replication_role", &["origin"]),
    ("synchronous_commit", &["on", "local", "remote_write", "remote_apply"]),
    ("zero_damaged_pages", &["off"]),
    ("default_transaction_isolation", &["read committed"]),
    ("local_preload_libraries", &[""]),
    ("session_preload_libraries", &[""]),
];
/// Of the last ones only what a role or this database was given counts: a server may have reasons.
const SETTINGS_OF_ANY_SESSION: usize = 6;

const ON_ROWS: [(char, &str); 4] =
    [('r', "SELECT"), ('a', "INSERT"), ('w', "UPDATE"), ('d', "DELETE")];
/// Everything that may be granted on a table.
const PRIVILEGES: [&str; 7] =
    ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"];

/// Looks at all of it.
pub(super) async fn check(
    connection: &mut PgConnection,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    triggers(connection, findings).await?;
    others_on_tables(connection, findings).await?;
    keys(connection, findings).await?;
    rights(connection, findings).await?;
    roles(connection, findings).await?;
    settings(connection, findings).await
}

fn guard(findings: &mut Findings, what: impl Into<String>) {
    findings.add(Finding::aside(FindingCode::GuardAltered, what));
}

/// The body of the function that refuses a change.
fn refuse_body() -> &'static str {
    FIRST_MIGRATION.split("$$").nth(1).unwrap_or_default()
}

async fn triggers(
    connection: &mut PgConnection,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query(
        "select tgname::text as name, tgrelid::regclass::text as of, tgtype, \
         tgenabled::text as enabled, proname::text as calls, \
         tgqual is null and tgattr::text = '' and tgnargs = 0 as always, \
         prosrc as body, proconfig is null and lanname = 'plpgsql' as plain \
         from pg_trigger join pg_proc on pg_proc.oid = tgfoid \
         join pg_language on pg_language.oid = prolang \
         where tgrelid in ('events'::regclass, 'trail'::regclass) and not tgisinternal",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut found = BTreeMap::new();
    for row in &rows {
        found.insert((row.try_get::<&str, _>("name")?, row.try_get::<&str, _>("of")?), row);
    }
    for (name, of, fires) in TRIGGERS {
        let Some(row) = found.get(&(name, of)) else {
            guard(findings, format!("the trigger {name}, which refuses changes, is gone"));
            continue;
        };
        if row.try_get::<&str, _>("enabled")? != "A" {
            let what = format!("the trigger {name}, which refuses changes, is disabled");
            guard(findings, format!("{what}, or can be switched off for a session"));
        }
        let whole = row.try_get::<i16, _>("tgtype")? == fires
            && row.try_get("always")?
            && row.try_get::<&str, _>("calls")? == REFUSE;
        if !whole {
            guard(findings, format!("the trigger {name} no longer refuses every change"));
        }
        if row.try_get::<&str, _>("body")? != refuse_body() || !row.try_get::<bool, _>("plain")? {
            let what = "which refuses changes, was replaced";
            guard(findings, format!("the function of the trigger {name}, {what}"));
        }
    }
    Ok(())
}

/// What else may act on a table, or stand in for it.
async fn others_on_tables(
    connection: &mut PgConnection,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let known: Vec<String> = TRIGGERS.iter().map(|(name, of, _)| format!("{of} {name}")).collect();
    let found: Vec<String> = sqlx::query_scalar(
        "with ours as (select oid, relname, relkind, relpersistence, relrowsecurity from pg_class \
             where relname = any($1) and relnamespace = \
             (select relnamespace from pg_class where oid = 'events'::regclass) \
             and relkind not in ('i', 'I')) \
         select format('%s has a trigger that no migration made: %s', relname, tgname) \
             from ours join pg_trigger on tgrelid = ours.oid \
             where not tgisinternal and not (relname || ' ' || tgname = any($2)) \
         union all select format('%s has a rule that no migration made: %s', relname, rulename) \
             from ours join pg_rewrite on ev_class = ours.oid where relkind = 'r' \
         union all select format('%s is no plain table any more', relname) \
             from ours where relkind <> 'r' \
         union all select format('%s is unlogged: a crash empties it', relname) \
             from ours where relpersistence <> 'p' \
         union all select format('%s hides rows by row security', relname) \
             from ours where relrowsecurity \
         union all select format('%s is mixed with the rows of another table: %s', relname, \
             inhrelid::regclass) from ours join pg_inherits on inhparent = ours.oid order by 1",
    )
    .bind(tables::names())
    .bind(known)
    .fetch_all(connection)
    .await?;
    found.into_iter().for_each(|what| guard(findings, what));
    Ok(())
}

async fn keys(connection: &mut PgConnection, findings: &mut Findings) -> Result<(), sqlx::Error> {
    let standing: BTreeSet<(String, String)> =
        tables::keys(connection).await?.into_iter().collect();
    for table in TABLES {
        for key in table.keys {
            if !standing.contains(&(table.name.to_owned(), (*key).to_owned())) {
                guard(findings, format!("the key ({key}) of {} is gone", table.name));
            }
        }
    }
    Ok(())
}

fn granted(findings: &mut Findings, what: String) {
    findings.add(Finding::aside(FindingCode::RightGranted, what));
}

/// Rights on our tables, as they take effect: through memberships, through everybody's, on single
/// columns as well; and whether a role has those of ours.
const RIGHTS: &str = "\
    with tables as (select oid, relname::text, relowner from pg_class \
        where relname = any($1) and relkind = 'r' and relnamespace = \
        (select relnamespace from pg_class where oid = 'events'::regclass)), \
    owner as (select relowner from tables where relname = 'events'), \
    roles as (select 'public'::name as rolname, false as writes, false as reads \
        union all select rolname, pg_has_role(rolname, $3, 'usage'), \
            pg_has_role(rolname, $4, 'usage') from pg_roles, owner \
        where not rolname like 'pg\\_%' and (rolname in ($3, $4) or \
            not rolsuper and not pg_has_role(rolname, relowner, 'usage'))) \
    select rolname::text, relname, privilege, \
        has_table_privilege(rolname, tables.oid, privilege) as whole, writes, reads \
    from roles cross join tables cross join unnest($2::text[]) as wanted (privilege) \
    where case when privilege in ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') \
        then has_any_column_privilege(rolname, tables.oid, privilege) \
        else has_table_privilege(rolname, tables.oid, privilege) end";

/// A right that somebody has.
#[derive(Debug, sqlx::FromRow)]
struct Right {
    #[sqlx(rename = "rolname")]
    role: String,
    #[sqlx(rename = "relname")]
    table: String,
    privilege: String,
    /// On all of the table, not on single columns.
    whole: bool,
    /// Whether it is one who has all that the writing role has.
    writes: bool,
    /// Whether it is one who has all that the reading role has.
    reads: bool,
}

impl Right {
    /// Whether a migration gave it, to our roles and so to their members; what changes nothing is
    /// anybody's.
    fn is_given(&self) -> bool {
        let ours = [WRITER, READER].contains(&self.role.as_str());
        if !ours && matches!(self.privilege.as_str(), "SELECT" | "REFERENCES") {
            return true;
        }
        let Some(table) = TABLES.iter().find(|table| table.name == self.table) else { return true };
        let letter = ON_ROWS.iter().find(|(_, name)| *name == self.privilege);
        let given = |to: &str| letter.is_some_and(|(letter, _)| to.contains(*letter));
        let columns = !self.whole
            && self.privilege == "SELECT"
            && READABLE_COLUMNS.iter().any(|(table, _)| *table == self.table);
        // A superuser has everybody's, and it is no gift to ours.
        self.writes && self.role != READER && given(table.writer)
            || self.reads && self.role != WRITER && (given(table.reader) || columns)
    }
}

async fn rights(connection: &mut PgConnection, findings: &mut Findings) -> Result<(), sqlx::Error> {
    let held: Vec<Right> = sqlx::query_as(RIGHTS)
        .bind(tables::names())
        .bind(PRIVILEGES.as_slice())
        .bind(WRITER)
        .bind(READER)
        .fetch_all(&mut *connection)
        .await?;
    // Of a role: what it may do beyond what the migrations gave, and on which tables.
    let mut beyond: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for right in held.into_iter().filter(|right| !right.is_given()) {
        let of = beyond.entry(right.role).or_default();
        of.entry(right.privilege).or_default().push(right.table);
    }
    let everybodys = beyond.get("public").cloned().unwrap_or_default();
    for (role, privileges) in beyond {
        for (privilege, mut tables) in privileges {
            if role != "public" {
                let theirs = everybodys.get(&privilege);
                tables.retain(|table| theirs.is_none_or(|theirs| !theirs.contains(table)));
            }
            if tables.is_empty() {
                continue;
            }
            tables.sort();
            let who = if role == "public" { "everybody".to_owned() } else { role.clone() };
            let what = format!("{who} may {privilege} on {}", tables.join(", "));
            granted(findings, format!("{what}, which no migration granted"));
        }
    }
    for (table, readable) in READABLE_COLUMNS {
        columns(connection, findings, table, readable).await?;
    }
    Ok(())
}

/// Which columns the reading role may read of a table that it may not.
async fn columns(
    connection: &mut PgConnection,
    findings: &mut Findings,
    table: &str,
    readable: &[&str],
) -> Result<(), sqlx::Error> {
    let columns: Vec<String> = sqlx::query_scalar(
        "select attname::text from pg_attribute where attrelid = $1::regclass and attnum > 0 \
         and not attisdropped and not attname = any($2) \
         and has_column_privilege($3, attrelid, attnum, 'SELECT')",
    )
    .bind(table)
    .bind(readable)
    .bind(READER)
    .fetch_all(connection)
    .await?;
    if !columns.is_empty() {
        let what = format!("{READER} may read {} of {table}", columns.join(", "));
        granted(findings, format!("{what}, which no migration granted"));
    }
    Ok(())
}

/// What the two roles are beyond their rights on tables.
async fn roles(connection: &mut PgConnection, findings: &mut Findings) -> Result<(), sqlx::Error> {
    let raised: Vec<(String, String)> = sqlx::query_as(
        "select rolname::text, what from pg_roles cross join lateral (values \
             (rolsuper, 'is a superuser'), (rolcreaterole, 'may create roles'), \
             (rolreplication, 'may replicate'), (rolbypassrls, 'may bypass row security'), \
             (exists (select from pg_class where oid = 'events'::regclass and \
                 pg_has_role(pg_roles.oid, relowner, 'member')), 'may act as the ledger''s owner') \
         ) as attribute (has, what) where rolname in ($1, $2) and has",
    )
    .bind(WRITER)
    .bind(READER)
    .fetch_all(connection)
    .await?;
    for (role, what) in raised {
        granted(findings, format!("{role} {what}, which no migration granted"));
    }
    Ok(())
}

/// What was set for this database or for a role that the server works under.
async fn settings(
    connection: &mut PgConnection,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let set: Vec<(String, String)> = sqlx::query_as(
        "select setting, concat_ws(' in ', \
             case when setrole <> 0 then 'role ' || pg_get_userbyid(setrole) end, \
             case when setdatabase <> 0 then 'this database' end) \
         from pg_db_role_setting cross join unnest(setconfig) as setting \
         where setdatabase in (0, (select oid from pg_database where datname = \
             current_database())) \
         and (setrole = 0 or pg_get_userbyid(setrole) in (session_user, $1, $2)) order by 1, 2",
    )
    .bind(WRITER)
    .bind(READER)
    .fetch_all(&mut *connection)
    .await?;
    for (setting, of) in set {
        let (name, value) = setting.split_once('=').unwrap_or((&setting, ""));
        judge(findings, name, value, &format!("of {of}"));
    }
    for (name, _) in &SETTINGS[..SETTINGS_OF_ANY_SESSION] {
        let value: String = sqlx::query_scalar("select current_setting($1)")
            .bind(name)
            .fetch_one(&mut *connection)
            .await?;
        judge(findings, name, &value, "of this session");
    }
    Ok(())
}

fn judge(findings: &mut Findings, name: &str, value: &str, of: &str) {
    let rule = SETTINGS.iter().find(|(setting, _)| *setting == name);
    if let Some((_, accepted)) = rule
        && !accepted.contains(&value)
    {
        let what = format!("the setting {name} {of} is `{value}`; it must be `{}`", accepted[0]);
        findings.add(Finding::aside(FindingCode::SettingChanged, what));
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;
    use crate::testing::TestDatabase;

    #[tokio::test]
    async fn a_migrated_database_has_the_tables_keys_and_rights_listed_and_no_others() {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let mut owner = pools.owner.acquire().await.unwrap();
        assert_eq!(tables::standing(&mut *owner).await.unwrap(), tables::names());
        let mut listed: Vec<(String, String)> = TABLES
            .iter()
            .flat_map(|table| table.keys.iter().map(|key| (table.name.into(), (*key).into())))
            .collect();
        listed.sort();
        assert_eq!(tables::keys(&mut owner).await.unwrap(), listed);
        let mut writer = pools.writer.acquire().await.unwrap();
        let mut findings = Findings::default();
        check(&mut writer, &mut findings).await.unwrap();
        assert_eq!(findings.into_parts(), (vec![], 0));
        // And none of those listed is missing.
        for table in TABLES {
            for (role, given) in [(WRITER, table.writer), (READER, table.reader)] {
                for (letter, privilege) in ON_ROWS {
                    let held: bool = sqlx::query_scalar("select has_table_privilege($1, $2, $3)")
                        .bind(role)
                        .bind(table.name)
                        .bind(privilege)
                        .fetch_one(&mut *writer)
                        .await
                        .unwrap();
                    assert_eq!(held, given.contains(letter), "{role} {privilege} {}", table.name);
                }
            }
        }
        drop((owner, writer));
        pools.close().await;
        database.close().await;
    }

    /// Does it in a transaction that is rolled back: roles are every test's.
    #[tokio::test]
    async fn whatever_is_taken_off_or_granted_is_found() {
        let database = TestDatabase::new().await;
        let pools = database.pools().await;
        let mut owner = pools.owner.acquire().await.unwrap();
        let mallory = format!("mallory_{}", uuid::Uuid::new_v4().simple());
        let name: String =
            sqlx::query_scalar("select current_database()").fetch_one(&mut *owner).await.unwrap();
        use FindingCode::{GuardAltered, RightGranted, SettingChanged};
        let edits = [
            (GuardAltered, "drop trigger events_append_only on events"),
            (GuardAltered, "drop trigger trail_append_only on trail"),
            (GuardAltered, "alter table trail disable trigger trail_no_truncate"),
            (GuardAltered, "alter table events disable trigger events_no_truncate"),
            (GuardAltered, "alter table events enable replica trigger events_append_only"),
            (GuardAltered, "alter table events enable trigger events_append_only"),
            (
                GuardAltered,
                "create or replace function refuse_change() returns trigger language plpgsql \
                 as 'begin return null; end'",
            ),
            (GuardAltered, "alter function refuse_change() set session_replication_role = replica"),
            (
                GuardAltered,
                "create or replace trigger events_append_only before update or delete on events \
                 for each row when (old.position > 9) execute function refuse_change(); \
                 alter table events enable always trigger events_append_only",
            ),
            (
                GuardAltered,
                "create trigger more before insert on notes for each row \
                 execute function refuse_change()",
            ),
            (GuardAltered, "create rule more as on delete to events do instead nothing"),
            (GuardAltered, "alter table events enable row level security"),
            (GuardAltered, "create table more () inherits (events)"),
            (GuardAltered, "alter table judged_punches set unlogged"),
            (GuardAltered, "drop index events_position"),
            (GuardAltered, "alter table notes drop constraint notes_pkey"),
            (
                GuardAltered,
                "alter table device_reports rename to more; \
                 create view device_reports as select * from more",
            ),
            (RightGranted, "grant update on events to punchtrail_writer"),
            (RightGranted, "grant update (payload) on events to punchtrail_writer"),
            (RightGranted, "grant truncate on events to punchtrail_reader"),
            (RightGranted, "grant delete on quarantine_items to punchtrail_writer"),
            (RightGranted, "grant select on operator_keys to punchtrail_reader"),
            (RightGranted, "grant select (key_hash) on operator_keys to punchtrail_reader"),
            (RightGranted, "grant select (password_phc) on users to punchtrail_reader"),
            (RightGranted, "grant delete on trail to punchtrail_writer"),
            (RightGranted, "grant update on notes to public"),
            (RightGranted, "grant insert on device_credentials to MALLORY"),
            (RightGranted, "grant update (position) on ledger_head to MALLORY"),
            (RightGranted, "grant pg_write_all_data to MALLORY"),
            (RightGranted, "alter table notes owner to MALLORY"),
            (RightGranted, "alter role punchtrail_writer superuser"),
            (RightGranted, "alter role punchtrail_reader createrole"),
            (SettingChanged, "alter database DATABASE set synchronous_commit = off"),
            (SettingChanged, "alter role punchtrail_writer set synchronous_commit = off"),
            (
                SettingChanged,
                "alter role punchtrail_reader in database DATABASE \
                 set session_replication_role = replica",
            ),
            (SettingChanged, "alter role all set session_preload_libraries = 'auto_explain'"),
            (SettingChanged, "set local session_replication_role = replica"),
            (SettingChanged, "set local zero_damaged_pages = on"),
        ];
        for (code, edit) in edits {
            let mut attempt = owner.begin().await.unwrap();
            let edit = edit.replace("MALLORY", &mallory).replace("DATABASE", &name);
            let edit = format!("create role {mallory}; {edit}");
            sqlx::raw_sql(&edit).execute(&mut *attempt).await.expect(&edit);
            let mut findings = Findings::default();
            check(&mut attempt, &mut findings).await.expect(&edit);
            attempt.rollback().await.unwrap();
            let (findings, _) = findings.into_parts();
            let found: BTreeSet<FindingCode> = findings.iter().map(|one| one.code).collect();
            assert_eq!(found, BTreeSet::from([code]), "{edit}: {findings:?}");
        }
        // What others read, and a setting that keeps what it must, are nobody's business here.
        let mut attempt = owner.begin().await.unwrap();
        let edit = format!(
            "create role {mallory}; grant select on events to {mallory}; \
             grant punchtrail_writer to {mallory}; \
             alter database {name} set synchronous_commit = remote_apply; \
             create index more on events (recorded_at)"
        );
        sqlx::raw_sql(&edit).execute(&mut *attempt).await.unwrap();
        let mut findings = Findings::default();
        check(&mut attempt, &mut findings).await.unwrap();
        attempt.rollback().await.unwrap();
        assert_eq!(findings.into_parts(), (vec![], 0));
        drop(owner);
        pools.close().await;
        database.close().await;
    }
}
