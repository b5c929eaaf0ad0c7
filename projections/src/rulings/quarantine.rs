//! What devices sent that can't be taken as punches, and what people made of it.

use std::{collections::HashMap, sync::Arc};

use futures::future::BoxFuture;
use jiff_sqlx::ToSqlx;
use punchtrail_domain::{
    AggregateType, Event,
    quarantine::{QuarantineEvent, Said, bytes_of},
};
use punchtrail_infra::{ledger::Entry, postgres::Pool};
use punchtrail_protocol::{
    DeviceId, Digest, EmployeeId, Position, PunchId, SiteId, Time, capture::Capture,
};
use serde::Serialize;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row, postgres::PgRow};

use crate::{
    engine::columns::{ids, parsed, time, time_or_none},
    engine::{
        Generation, Projection, ProjectionError,
        page::{Order, Page},
    },
};

/// The model's name, for `Punchtrail-After`.
pub const NAME: &str = "quarantine";

/// The model.
#[derive(Debug)]
pub struct QuarantinedItems;

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[derive(strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
#[strum(parse_err_ty = UnknownState, parse_err_fn = UnknownState::of)]
pub enum ItemState {
    Waiting,
    /// A person took it in as a punch.
    Admitted,
    /// A person found that it is no punch.
    Dismissed,
}

impl ItemState {
    /// The state as the API and the tables write it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A text that names no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a state is one of `waiting`, `admitted`, `dismissed`")]
pub struct UnknownState;

impl UnknownState {
    fn of(_: &str) -> Self {
        Self
    }
}

impl Projection for QuarantinedItems {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        3
    }

    fn tables(&self) -> &'static [&'static str] {
        &["quarantine"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        format!(
            "create table {table} (
                 -- Serves one item, and what became of it.
                 item        bytea primary key,
                 code        text not null,
                 device      uuid not null,
                 punch       uuid,
                 seq         bigint,
                 received_at timestamptz not null,
                 -- Whose punch it says to be and of when, as far as its bytes can be read.
                 employee    uuid,
                 captured_at timestamptz,
                 state       text not null,
                 admitted_as uuid,
                 -- Of the item's first event: the order of the list.
                 position    bigint not null
             )",
            table = generation.table("quarantine"),
        )
    }

    fn index_sql(&self, generation: &Generation) -> String {
        let table = generation.table("quarantine");
        format!(
            "-- Serves all items in the order they came.
             create index if not exists {all} on {table} (position);
             -- Serves those in one state, in the order they came.
             create index if not exists {state} on {table} (state, position);
             -- Serves those under a punch's id.
             create index if not exists {punch} on {table} (punch, position)
                 where punch is not null;
             -- Serves how much of a device waits, and what of a day.
             create index if not exists {device}
                 on {table} (device, coalesce(captured_at, received_at)) where state = 'waiting';
             -- Serves a person's day.
             create index if not exists {person}
                 on {table} (employee, coalesce(captured_at, received_at))
                 where employee is not null;",
            punch = generation.index("quarantine", "punch"),
            device = generation.index("quarantine", "device"),
            person = generation.index("quarantine", "person"),
            all = generation.index("quarantine", "position"),
            state = generation.index("quarantine", "state"),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let table = generation.table("quarantine");
            let concerned =
                |entry: &&Arc<Entry>| entry.recorded.aggregate_type == AggregateType::Quarantine;
            let mut settled = HashMap::new();
            let mut new = Vec::new();
            for entry in events.iter().filter(concerned) {
                let Event::Quarantine(item, event) = entry.event()? else { continue };
                let position = entry.recorded.position;
                match event {
                    QuarantineEvent::Quarantined { .. } => new.push((*item, event, position)),
                    QuarantineEvent::AdmittedAsPunch { punch } => {
                        settled.insert(*item, (ItemState::Admitted, Some(*punch), position));
                    }
                    QuarantineEvent::Dismissed { .. } => {
                        settled.insert(*item, (ItemState::Dismissed, None, position));
                    }
                }
            }
            insert(tx, &table, &new).await?;
            settle(tx, &table, &settled).await
        })
    }
}

async fn insert(
    tx: &mut PgConnection,
    table: &str,
    new: &[(Digest, &QuarantineEvent, Position)],
) -> Result<(), ProjectionError> {
    if new.is_empty() {
        return Ok(());
    }
    let said: HashMap<Digest, Said> = kept(tx, new.iter().map(|(item, ..)| *item))
        .await?
        .map(|(item, bytes)| (item, Said::of(&bytes)))
        .collect();
    let (mut employees, mut made_at) = (vec![], vec![]);
    let (mut items, mut codes, mut devices, mut punches) = (vec![], vec![], vec![], vec![]);
    let (mut seqs, mut times, mut positions) = (vec![], vec![], vec![]);
    for (item, event, position) in new {
        let QuarantineEvent::Quarantined { code, device, punch, seq, received_at } = event else {
            continue;
        };
        items.push(item.0.to_vec());
        codes.push(code.as_str());
        devices.push(device.uuid());
        punches.push(punch.map(PunchId::uuid));
        seqs.push(seq.map(u64::cast_signed));
        times.push(received_at.timestamp().to_sqlx());
        positions.push(position.to_db());
        let said = said.get(item);
        employees.push(said.and_then(|said| said.employee).map(EmployeeId::uuid));
        let at = said.and_then(|said| said.captured_at);
        made_at.push(at.map(|at| at.timestamp().to_sqlx()));
    }
    let statement = format!(
        "insert into {table} (item, code, device, punch, seq, received_at, employee, captured_at, \
             state, position) \
         select item, code, device, punch, seq, received_at, employee, captured_at, 'waiting', \
             position \
         from unnest($1::bytea[], $2::text[], $3::uuid[], $4::uuid[], $5::bigint[], \
             $6::timestamptz[], $7::uuid[], $8::timestamptz[], $9::bigint[]) \
         as new (item, code, device, punch, seq, received_at, employee, captured_at, position)"
    );
    sqlx::query(&statement)
        .bind(items)
        .bind(codes)
        .bind(devices)
        .bind(punches)
        .bind(seqs)
        .bind(times)
        .bind(employees)
        .bind(made_at)
        .bind(positions)
        .execute(tx)
        .await?;
    Ok(())
}

/// What items say, those that can be read as a capture. An item's id binds its bytes to its event.
pub(crate) async fn said(
    tx: &mut PgConnection,
    items: impl Iterator<Item = Digest>,
) -> Result<HashMap<Digest, Capture>, sqlx::Error> {
    let read = |(item, bytes): (Digest, Vec<u8>)| Some((item, Capture::parse_kept(&bytes).ok()?));
    Ok(kept(tx, items).await?.filter_map(read).collect())
}

/// The bytes of items.
async fn kept(
    tx: &mut PgConnection,
    items: impl Iterator<Item = Digest>,
) -> Result<impl Iterator<Item = (Digest, Vec<u8>)>, sqlx::Error> {
    let ids: Vec<_> = items.map(|item| item.0.to_vec()).collect();
    let kept: Vec<(Vec<u8>, String)> =
        sqlx::query_as("select id, capture from quarantine_items where id = any($1)")
            .bind(ids)
            .fetch_all(tx)
            .await?;
    Ok(kept
        .into_iter()
        .filter_map(|(id, capture)| Some((Digest(id.try_into().ok()?), bytes_of(&capture)))))
}

async fn settle(
    tx: &mut PgConnection,
    table: &str,
    settled: &HashMap<Digest, (ItemState, Option<PunchId>, Position)>,
) -> Result<(), ProjectionError> {
    let Some(last) = settled.values().map(|(_, _, position)| *position).max() else {
        return Ok(());
    };
    let (mut items, mut states, mut punches) = (vec![], vec![], vec![]);
    for (item, (state, punch, _)) in settled {
        items.push(item.0.to_vec());
        states.push(state.as_str());
        punches.push(punch.map(PunchId::uuid));
    }
    let statement = format!(
        "update {table} as held set state = now.state, admitted_as = now.punch \
         from unnest($1::bytea[], $2::text[], $3::uuid[]) as now (item, state, punch) \
         where held.item = now.item"
    );
    let done = sqlx::query(&statement).bind(&items).bind(states).bind(punches).execute(tx).await?;
    if done.rows_affected() == items.len() as u64 {
        return Ok(());
    }
    Err(ProjectionError::inconsistent(last, "a settled item is not in the model"))
}

/// A quarantined item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuarantineItem {
    /// Its id: the digest of who sent it and what.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub item: Digest,
    /// Why it can't be taken as a punch, as a code.
    pub code: String,
    pub device: DeviceId,
    /// The punch id, if it could be read.
    pub punch: Option<PunchId>,
    /// The number, if it could be read from bytes that the device signed.
    pub seq: Option<u64>,
    /// When it came, by the server's clock.
    pub received_at: Time,
    /// Whose punch it says to be, if that can be read.
    pub employee: Option<EmployeeId>,
    /// Of when it says to be, if that can be read.
    pub captured_at: Option<Time>,
    /// What became of it: `waiting`, `admitted` or `dismissed`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub state: ItemState,
    /// The punch it was admitted as.
    pub admitted_as: Option<PunchId>,
    /// Position of its first event.
    pub position: Position,
}

impl FromRow<'_, PgRow> for QuarantineItem {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let item: &[u8] = row.try_get("item")?;
        let item = item.try_into().map_err(|error: std::array::TryFromSliceError| {
            sqlx::Error::ColumnDecode { index: "item".to_owned(), source: Box::new(error) }
        })?;
        Ok(Self {
            item: Digest(item),
            code: row.try_get("code")?,
            device: DeviceId(row.try_get("device")?),
            punch: row.try_get::<Option<_>, _>("punch")?.map(PunchId),
            seq: row.try_get::<Option<i64>, _>("seq")?.map(i64::cast_unsigned),
            received_at: time(row, "received_at")?,
            employee: row.try_get::<Option<_>, _>("employee")?.map(EmployeeId),
            captured_at: time_or_none(row, "captured_at")?,
            state: parsed(row, "state")?,
            admitted_as: row.try_get::<Option<_>, _>("admitted_as")?.map(PunchId),
            position: Position::from_db(row.try_get("position")?),
        })
    }
}

/// How many items of a device wait for a person, and how many bytes their texts have.
///
/// # Errors
/// When the database is out of reach.
pub async fn waiting_of(pool: &Pool, device: DeviceId) -> Result<(u64, u64), sqlx::Error> {
    let (items, bytes): (i64, i64) = sqlx::query_as(
        "select count(*), \
         coalesce(sum(octet_length(capture) + octet_length(signature)), 0)::bigint \
         from read.quarantine waiting join quarantine_items kept on kept.id = waiting.item \
         where waiting.device = $1 and waiting.state = 'waiting'",
    )
    .bind(device.uuid())
    .fetch_one(pool)
    .await?;
    Ok((items.cast_unsigned(), bytes.cast_unsigned()))
}

/// One item; none if there is none of that id.
///
/// # Errors
/// When the database is out of reach.
pub async fn one(pool: &Pool, item: Digest) -> Result<Option<QuarantineItem>, sqlx::Error> {
    sqlx::query_as("select * from read.quarantine where item = $1")
        .bind(item.0.to_vec())
        .fetch_optional(pool)
        .await
}

/// The items that wait and may be a person's punches of that time, in the order they came, at most
/// `limit`; and how many there are, counted up to `count_max`. They name the person, or nobody and
/// come from one of these devices. One whose time can't be read is of when it came.
///
/// # Errors
/// When the database is out of reach.
pub async fn of_person(
    pool: &Pool,
    (employee, devices): (EmployeeId, &[DeviceId]),
    (from, to): (Time, Time),
    (limit, count_max): (u32, u64),
) -> Result<(Vec<QuarantineItem>, u64), sqlx::Error> {
    let within = "state = 'waiting' and coalesce(captured_at, received_at) >= $3 \
         and coalesce(captured_at, received_at) < $4";
    let statement = format!(
        "select found.*, count(*) over () as found from ( \
             (select * from read.quarantine where employee = $1 and {within} limit $6) \
             union all (select * from read.quarantine where device = any($2) \
                 and employee is null and {within} limit $6) limit $6) found \
         order by position limit $5"
    );
    let rows: Vec<PgRow> = sqlx::query(&statement)
        .bind(employee.uuid())
        .bind(devices.iter().map(|device| device.uuid()).collect::<Vec<_>>())
        .bind(from.timestamp().to_sqlx())
        .bind(to.timestamp().to_sqlx())
        .bind(i64::from(limit))
        .bind(count_max.cast_signed())
        .fetch_all(pool)
        .await?;
    let count = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>("found"))?;
    let items = rows.iter().map(QuarantineItem::from_row).collect::<Result<_, _>>()?;
    Ok((items, count.cast_unsigned()))
}

/// Which items; what is none is not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filter<'a> {
    pub state: Option<ItemState>,
    /// Under this punch's id.
    pub punch: Option<PunchId>,
    /// Only of devices that ever served one of these sites: of a caller who sees no others.
    pub within: Option<&'a [SiteId]>,
}

/// The items that `filter` asks for, in the order they came, after that position; at most `limit`.
///
/// # Errors
/// When the database is out of reach.
pub async fn list(
    pool: &Pool,
    filter: &Filter<'_>,
    order: Order,
    after: Option<Position>,
    limit: u32,
) -> Result<Page<QuarantineItem>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("select * from read.quarantine where true");
    let Filter { state, punch, within } = *filter;
    if let Some(sites) = within {
        query.push(" and device = any(array(select device from read.devices_sites");
        query.push(" where site = any(").push_bind(ids(sites)).push(")))");
    }
    if let Some(state) = state {
        query.push(" and state = ").push_bind(state.as_str());
    }
    if let Some(punch) = punch {
        query.push(" and punch = ").push_bind(punch.uuid());
    }
    let (beyond, direction) = match order {
        Order::NewestFirst => ("<", "desc"),
        Order::OldestFirst => (">", "asc"),
    };
    if let Some(after) = after {
        query.push(" and position ").push(beyond).push(" ").push_bind(after.to_db());
    }
    query.push(" order by position ").push(direction);
    query.push(" limit ").push_bind(Page::<QuarantineItem>::to_ask(limit));
    let rows = query.build_query_as().fetch_all(pool).await?;
    Ok(Page::cut(rows, limit))
}
