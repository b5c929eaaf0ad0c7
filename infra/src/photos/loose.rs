//! Photos that no punch names yet. One may be sent before its punch; that many are is a device
//! gone wrong, and their number is limited.

use jiff::SignedDuration;
use punchtrail_protocol::{DeviceId, Digest};
use sqlx::Row;

use crate::postgres::Pool;

/// The most that a device may have kept, in photos.
pub const LOOSE_PHOTOS_MAX: u64 = 2_000;
/// And in bytes.
pub const LOOSE_BYTES_MAX: u64 = 512 << 20;
/// The same of a revoked device, in photos.
pub const LOOSE_OF_REVOKED_MAX: u64 = 100;
/// For so long they are kept: longer than devices are usually away, and than a usual restore
/// window.
pub const LOOSE_FOR: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Each node that has the photo removes it within this time; then it is forgotten.
pub const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_hours(91 * 24);

/// Notes that a device sent a photo that no punch names.
///
/// # Errors
/// When the database is out of reach.
pub async fn note(
    writer: &Pool,
    photo: Digest,
    device: DeviceId,
    bytes: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into loose_photos (photo, device, bytes) values ($1, $2, $3) \
         on conflict (photo) do update set came_at = now()",
    )
    .bind(photo.0.as_slice())
    .bind(device.uuid())
    .bind(bytes.cast_signed())
    .execute(writer)
    .await
    .map(drop)
}

/// How many a device has kept, and how many bytes they are.
///
/// # Errors
/// When the database is out of reach.
pub async fn of_device(writer: &Pool, device: DeviceId) -> Result<(u64, u64), sqlx::Error> {
    let (count, bytes): (i64, i64) = sqlx::query_as(
        "select count(*), coalesce(sum(bytes), 0)::bigint from loose_photos where device = $1",
    )
    .bind(device.uuid())
    .fetch_one(writer)
    .await?;
    Ok((count.cast_unsigned(), bytes.cast_unsigned()))
}

/// A device's, or anybody's, the oldest first, after that one; with how old they are.
///
/// # Errors
/// When the database is out of reach.
pub async fn page(
    writer: &Pool,
    device: Option<DeviceId>,
    after: Option<Digest>,
    limit: u32,
) -> Result<Vec<(Digest, SignedDuration)>, sqlx::Error> {
    let rows = sqlx::query(
        "select photo, extract(epoch from now() - came_at)::bigint as age_s from loose_photos \
         where ($1::uuid is null or device = $1) and photo > $2 order by photo limit $3",
    )
    .bind(device.map(DeviceId::uuid))
    .bind(after.map(|photo| photo.0.to_vec()).unwrap_or_default())
    .bind(i64::from(limit))
    .fetch_all(writer)
    .await?;
    rows.iter()
        .map(|row| {
            let photo: [u8; 32] =
                row.try_get::<Vec<u8>, _>("photo")?.try_into().unwrap_or_default();
            Ok((Digest(photo), SignedDuration::from_secs(row.try_get("age_s")?)))
        })
        .collect()
}

/// Forgets these: a punch names them, or they are gone.
///
/// # Errors
/// When the database is out of reach.
pub async fn forget(writer: &Pool, photos: &[Digest]) -> Result<(), sqlx::Error> {
    let photos: Vec<_> = photos.iter().map(|photo| photo.0.to_vec()).collect();
    sqlx::query("delete from loose_photos where photo = any($1)")
        .bind(photos)
        .execute(writer)
        .await
        .map(drop)
}
