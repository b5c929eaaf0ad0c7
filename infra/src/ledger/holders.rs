//! Who holds the head when it can't be had. Postgres ends a session that idles in a transaction,
//! but not one that waits for the rest of a COPY from a node that was frozen in the middle: nobody
//! could append as long as that node's machine answers for it.

use std::time::Duration;

use sqlx::Row;

use crate::postgres::{Pool, within};

/// How long looking may take.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// A transaction that has the head for so long, in seconds, and waits for its client, is ended:
/// longer than any node gives one of its own.
const HELD_S_MAX: f64 = 20.0;

/// Says who holds the head, and ends those whose node has forgotten them. `owner` connects as the
/// login whose sessions they are.
///
/// One that waits for a standby is never ended: its commit would be seen before it is safe.
pub(super) async fn look(owner: &Pool) {
    let holders = sqlx::query(
        "select pid, application_name, coalesce(client_addr::text, 'local') as client, \
         coalesce(wait_event, '') as waits_for, \
         extract(epoch from clock_timestamp() - xact_start)::float8 as held_s, \
         case when wait_event_type = 'Client' \
             and clock_timestamp() - xact_start > make_interval(secs => $1) \
             then pg_terminate_backend(pid) else false end as ended \
         from pg_stat_activity where pid in (select pid from pg_locks where granted \
             and locktype = 'relation' and relation = 'ledger_head'::regclass \
             and mode in ('RowShareLock', 'RowExclusiveLock')) \
         and wait_event_type is distinct from 'Lock' and xact_start is not null \
         and datname = current_database() and pid <> pg_backend_pid()",
    )
    .bind(HELD_S_MAX)
    .fetch_all(owner);
    match within(LOOK_MAX, holders).await {
        Ok(holders) => {
            for holder in holders {
                if let Err(error) = say(&holder) {
                    tracing::debug!(%error, "a holder of the head can't be read");
                }
            }
        }
        Err(error) => tracing::debug!(%error, "who holds the head can't be seen now"),
    }
}

fn say(holder: &sqlx::postgres::PgRow) -> Result<(), sqlx::Error> {
    tracing::warn!(
        pid = holder.try_get::<i32, _>("pid")?,
        application = holder.try_get::<&str, _>("application_name")?,
        client = holder.try_get::<&str, _>("client")?,
        waits_for = holder.try_get::<&str, _>("waits_for")?,
        held_s = holder.try_get::<f64, _>("held_s")?,
        ended = holder.try_get::<bool, _>("ended")?,
        "this session of the database holds the ledger's head"
    );
    Ok(())
}
