//! A database that goes back under whoever is connected to it, as in a failover to a standby that
//! was behind: what its tables held is saved, and put back later.

use sqlx::{Connection, Executor, PgConnection};

/// What of a database goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// All of it, as in a restore.
    Whole,
    /// Only its events and the head, and nothing beside them.
    Events,
    /// All but the read models.
    AllButReadModels,
}

/// The tables of a database, as they were.
#[derive(Debug)]
pub struct Saved {
    url: String,
    /// Schema, name, and the columns that aren't computed.
    tables: Vec<(String, String, String)>,
}

impl Saved {
    /// Saves what the tables hold now.
    ///
    /// # Panics
    /// When the database refuses.
    pub async fn of(url: &str) -> Self {
        let mut owner = connect(url).await;
        let tables: Vec<(String, String, String)> = sqlx::query_as(
            "select table_schema::text, table_name::text, \
             string_agg(quote_ident(column_name), ', ' order by ordinal_position) \
             from information_schema.columns join information_schema.tables \
             using (table_schema, table_name) where table_type = 'BASE TABLE' \
             and table_schema in ('public', 'read') and table_name <> '_sqlx_migrations' \
             and is_generated = 'NEVER' group by 1, 2 order by 1, 2",
        )
        .fetch_all(&mut owner)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
        let copies = tables.iter().map(|(schema, table, _)| {
            format!("create table saved.\"{schema}_{table}\" as table \"{schema}\".\"{table}\";")
        });
        let statement: String =
            std::iter::once("drop schema if exists saved cascade; create schema saved;".to_owned())
                .chain(copies)
                .collect();
        run(&mut owner, &statement).await;
        Self { url: url.to_owned(), tables }
    }

    /// Puts it back, in one transaction. Leases stay whose they are.
    ///
    /// # Panics
    /// When the database refuses.
    pub async fn put_back(&self, what: Back) {
        let mut owner = connect(&self.url).await;
        let goes = |schema: &str, table: &str| match what {
            Back::Whole => true,
            Back::Events => ["events", "ledger_head"].contains(&table),
            Back::AllButReadModels => schema != "read",
        };
        let mut statement = "begin; alter table events disable trigger user; \
                             alter table trail disable trigger user;"
            .to_owned();
        for (schema, table, columns) in &self.tables {
            if goes(schema, table) && table != "follower_leases" {
                let name = format!("\"{schema}\".\"{table}\"");
                statement.push_str(&format!(
                    "delete from {name}; insert into {name} ({columns}) overriding system value \
                     select {columns} from saved.\"{schema}_{table}\";"
                ));
            }
        }
        statement.push_str(
            "alter table events enable always trigger events_append_only; \
             alter table events enable always trigger events_no_truncate; \
             alter table trail enable always trigger trail_append_only; \
             alter table trail enable always trigger trail_no_truncate; commit;",
        );
        run(&mut owner, &statement).await;
    }
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn run(owner: &mut PgConnection, statement: &str) {
    owner.execute(statement).await.unwrap_or_else(|error| panic!("{error}: {statement}"));
}
