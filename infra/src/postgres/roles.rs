//! The two roles Punchtrail works under.
//!
//! The writer inserts into the ledger and can't change it; the reader owns the read models and
//! only selects from the ledger. Which tables each may touch is settled by the migrations. Roles
//! belong to a whole cluster, so databases share them and several processes may create them at
//! once. Never drops a role and never takes a right away.

use sqlx::{Connection, PgConnection};

use super::{embedded::is_duplicate, error::PostgresError};

/// Appends to the ledger.
pub const WRITER: &str = "punchtrail_writer";
/// Keeps and serves the read models.
pub const READER: &str = "punchtrail_reader";

/// Two processes granting at one instant make one of them fail ("tuple concurrently updated").
const ATTEMPTS_MAX: u32 = 5;

/// Makes sure both roles exist and that the connected user may switch to them.
///
/// # Errors
/// [`PostgresError::Roles`] with the statements an administrator has to run.
pub(super) async fn ensure(connection: &mut PgConnection) -> Result<(), PostgresError> {
    let mut attempt = 1;
    loop {
        match try_ensure(connection).await {
            Ok(()) => return Ok(()),
            Err(error) if attempt < ATTEMPTS_MAX && lost_a_race(&error) => attempt += 1,
            Err(error) => return Err(explain(connection, error).await),
        }
    }
}

async fn try_ensure(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    for role in [WRITER, READER] {
        let exists: bool =
            sqlx::query_scalar("select exists (select from pg_roles where rolname = $1)")
                .bind(role)
                .fetch_one(&mut *connection)
                .await?;
        if !exists {
            sqlx::raw_sql(&format!("create role {role} nologin")).execute(&mut *connection).await?;
        }
        if !may_become(connection, role).await? {
            sqlx::raw_sql(&format!("grant {role} to current_user"))
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}

/// Makes sure that these roles exist. Nobody can be them.
///
/// # Errors
/// When the database refuses.
pub(super) async fn make(
    connection: &mut PgConnection,
    names: &[String],
) -> Result<(), PostgresError> {
    let missing: Vec<String> = sqlx::query_scalar(
        "select quote_ident(name) from unnest($1::text[]) name \
         where not exists (select from pg_roles where rolname = name)",
    )
    .bind(names)
    .fetch_all(&mut *connection)
    .await
    .map_err(PostgresError::sql("look for roles"))?;
    for role in missing {
        let create = format!("create role {role} nologin");
        let created = sqlx::raw_sql(&create).execute(&mut *connection).await;
        created.map_err(PostgresError::sql("create a role"))?;
    }
    Ok(())
}

/// Gives the read models to the reader: who puts a dump back owns all of it at first.
///
/// # Errors
/// When the database refuses.
pub(super) async fn own_read_models(connection: &mut PgConnection) -> Result<(), PostgresError> {
    let statements = format!(
        "do $$ declare of_models record; begin \
             alter schema read owner to {READER}; \
             for of_models in select c.oid::regclass as name from pg_class c \
                 join pg_namespace n on n.oid = c.relnamespace \
                 where n.nspname = 'read' and c.relkind in ('r', 'p', 'v', 'm') loop \
                 execute format('alter table %s owner to {READER}', of_models.name); \
             end loop; \
             for of_models in select p.oid::regprocedure as name from pg_proc p \
                 join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'read' loop \
                 execute format('alter routine %s owner to {READER}', of_models.name); \
             end loop; \
         end $$"
    );
    let given = sqlx::raw_sql(&statements).execute(connection).await;
    given.map(drop).map_err(PostgresError::sql("give the read models to their role"))
}

/// Whether the connected user may `set role`. The attempt itself is the test: what membership
/// means for it changed with PostgreSQL 16.
async fn may_become(connection: &mut PgConnection, role: &str) -> Result<bool, sqlx::Error> {
    const INSUFFICIENT_PRIVILEGE: &str = "42501";
    let mut trial = connection.begin().await?;
    let tried = sqlx::raw_sql(&format!("set local role {role}")).execute(&mut *trial).await;
    trial.rollback().await?;
    match tried {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(error))
            if error.code().is_some_and(|code| code == INSUFFICIENT_PRIVILEGE) =>
        {
            Ok(false)
        }
        Err(other) => Err(other),
    }
}

fn lost_a_race(error: &sqlx::Error) -> bool {
    const INTERNAL_ERROR: &str = "XX000";
    error.as_database_error().is_some_and(|error| {
        is_duplicate(error) || error.code().is_some_and(|code| code == INTERNAL_ERROR)
    })
}

async fn explain(connection: &mut PgConnection, error: sqlx::Error) -> PostgresError {
    let Some(reason) = error.as_database_error().map(|error| error.message().to_owned()) else {
        return PostgresError::sql("set up the database roles")(error);
    };
    let user: Result<String, _> =
        sqlx::query_scalar("select current_user::text").fetch_one(connection).await;
    let user = user.unwrap_or_else(|_| "the connecting user".to_owned());
    let quoted = user.replace('"', "\"\"");
    PostgresError::Roles {
        sql: format!(
            "create role {WRITER} nologin;\ncreate role {READER} nologin;\n\
             grant {WRITER}, {READER} to \"{quoted}\";"
        ),
        reason,
        user,
    }
}
