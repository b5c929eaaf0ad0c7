//! Which photos punches name, and items in quarantine that say to be punches. A photo that none
//! does was sent for a punch that is still to come, or for nothing.

use std::{collections::HashSet, sync::Arc};

use futures::future::BoxFuture;
use punchtrail_domain::{Event, punch::PunchEvent, quarantine::QuarantineEvent};
use punchtrail_infra::{ledger::Entry, postgres::Pool};
use punchtrail_protocol::{Digest, PunchId};
use sqlx::PgConnection;

use crate::{
    engine::{Generation, Projection, ProjectionError},
    rulings::quarantine,
};

/// The model's name, for `Punchtrail-After`.
pub const NAME: &str = "photos";

/// The model.
#[derive(Debug)]
pub struct Photos;

impl Projection for Photos {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> i32 {
        1
    }

    fn tables(&self) -> &'static [&'static str] {
        &["photos"]
    }

    fn create_sql(&self, generation: &Generation) -> String {
        format!(
            "create table {table} (
                 photo bytea not null,
                 punch uuid not null,
                 -- Serves whether a punch names a photo.
                 primary key (photo, punch)
             )",
            table = generation.table("photos"),
        )
    }

    fn apply<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        generation: &'a Generation,
        events: &'a [Arc<Entry>],
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        Box::pin(async move {
            let (mut named, mut items) = (Vec::<(Digest, PunchId)>::new(), Vec::new());
            for entry in events {
                match entry.event()? {
                    Event::Punch(punch, PunchEvent::Captured { capture, .. }) => {
                        let photo = capture.capture().ok().and_then(|capture| capture.photo);
                        named.extend(photo.map(|photo| (photo, *punch)));
                    }
                    Event::Quarantine(item, QuarantineEvent::Quarantined { .. }) => {
                        items.push(*item);
                    }
                    _ => {}
                }
            }
            if !items.is_empty() {
                let said = quarantine::said(tx, items.into_iter()).await?;
                named.extend(said.values().filter_map(|said| Some((said.photo?, said.punch))));
            }
            insert(tx, &generation.table("photos"), &named).await
        })
    }
}

async fn insert(
    tx: &mut PgConnection,
    table: &str,
    named: &[(Digest, PunchId)],
) -> Result<(), ProjectionError> {
    if named.is_empty() {
        return Ok(());
    }
    let photos: Vec<_> = named.iter().map(|(photo, _)| photo.0.to_vec()).collect();
    let punches: Vec<_> = named.iter().map(|(_, punch)| punch.uuid()).collect();
    let statement = format!(
        "insert into {table} (photo, punch) select * from unnest($1::bytea[], $2::uuid[]) \
         on conflict do nothing"
    );
    sqlx::query(&statement).bind(photos).bind(punches).execute(tx).await?;
    Ok(())
}

/// Those of the photos that a punch names.
///
/// # Errors
/// When the database is out of reach.
pub async fn named(pool: &Pool, photos: &[Digest]) -> Result<HashSet<Digest>, sqlx::Error> {
    let asked: Vec<_> = photos.iter().map(|photo| photo.0.to_vec()).collect();
    let found: Vec<Vec<u8>> =
        sqlx::query_scalar("select distinct photo from read.photos where photo = any($1)")
            .bind(asked)
            .fetch_all(pool)
            .await?;
    Ok(found.into_iter().filter_map(|photo| photo.try_into().ok().map(Digest)).collect())
}
