//! The pictures, one by one: cleaned of everything that isn't the picture, each look noted first.

use punchtrail_infra::photos::reads;
use punchtrail_projections::{privacy::held, punches::photos};
use punchtrail_protocol::{Digest, EmployeeId, PunchId};
use punchtrail_vision::Picture;
use serde_json::{Value, json};

use super::{
    Export, ExportError, PAGE,
    archive::{Archive, Spool},
};

impl Export<'_> {
    /// Adds them under `photos/`, and a list of them with who looked at each before.
    pub(super) async fn pictures(
        &self,
        archive: &mut Archive,
        employee: EmployeeId,
    ) -> Result<(), ExportError> {
        let (mut list, pool) = (Spool::new()?, &self.pools.reader);
        for (photo, stands) in photos::references_of(pool, employee).await? {
            if stands {
                self.picture(archive, &mut list, photo, None).await?;
            }
        }
        let mut after = None;
        loop {
            let kept = held::photos_after(pool, employee, after, PAGE).await?;
            let Some(last) = kept.last().copied() else { break };
            after = Some(last);
            for one in kept {
                self.picture(archive, &mut list, one.photo, Some(one.punch)).await?;
            }
        }
        Ok(archive.add_spool("photos.jsonl", list).await?)
    }

    async fn picture(
        &self,
        archive: &mut Archive,
        list: &mut Spool,
        photo: Digest,
        punch: Option<PunchId>,
    ) -> Result<(), ExportError> {
        let looked = reads::of(&self.pools.reader, photo).await?;
        let looked: Vec<Value> = looked
            .into_iter()
            .map(|read| json!({"reader": read.reader, "at": read.at, "request_id": read.request}))
            .collect();
        let name = match punch {
            Some(punch) => format!("photos/{punch}-{photo}.jpg"),
            None => format!("photos/reference-{photo}.jpg"),
        };
        let mut line = json!({"photo": photo, "punch": punch, "looked_at_by": looked});
        if let Some(bytes) = self.cleaned(photo).await? {
            archive.add(&name, bytes).await?;
            line["file"] = Value::String(name);
        }
        Ok(list.write(format!("{line}\n").as_bytes()).await?)
    }

    /// None if the bytes are gone meanwhile, or are no picture.
    async fn cleaned(&self, photo: Digest) -> Result<Option<Vec<u8>>, ExportError> {
        let Some(bytes) = self.photos.read(&photo).await? else { return Ok(None) };
        let request = self.request.as_deref();
        reads::note(&self.pools.writer, photo, &self.reader, request).await?;
        let cleaned = tokio::task::spawn_blocking(move || {
            Picture::decode(&bytes).ok().map(|picture| picture.cleaned())
        });
        Ok(cleaned.await.map_err(std::io::Error::other)?)
    }
}
