//! Acting on commands of the server. What is done and that it was done are one transaction of the
//! store, so a command is acted on once, wherever the process dies.

use punchtrail_protocol::{
    Time,
    command::{CommandArgs, CommandStatus, CommandType},
    strict_json,
};

use crate::{
    device::Device,
    store::{
        Db, StoreError, commands,
        commands::{Outcome, TakenCommand},
        contact,
        identity::{self, Identity},
        photos,
    },
};

/// What commands that were acted on ask of whoever delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Obeyed {
    /// The server was asked what waits.
    pub asked: bool,
    /// It gave as many as it gives at once: more may wait.
    pub more: bool,
    /// The manifest is to be walked.
    pub walk: bool,
    /// What waits is to go now, whatever pause this device chose itself.
    pub upload: bool,
}

impl Device {
    /// Acts on the oldest command that is kept and was not acted on; none if there is none.
    pub(crate) async fn obey(
        &self,
        identity: &Identity,
        obeyed: &mut Obeyed,
    ) -> Result<bool, StoreError> {
        let mut write = self.store.write().await?;
        let Some(taken) = commands::next_to_do(&mut write, identity.id).await? else {
            return Ok(false);
        };
        let kind = taken.kind.parse().ok();
        let outcome = self.act(&mut write, identity, (kind, &taken)).await?;
        commands::finish(&mut write, identity.id, taken.command, &outcome).await?;
        write.commit().await?;
        let (device, command, status) = (identity.device, taken.command, outcome.status.as_str());
        tracing::info!(%device, %command, kind = kind.map(CommandType::as_str), status, "command");
        if outcome.status == CommandStatus::Done {
            obeyed.walk |= kind == Some(CommandType::SyncEmployees);
            obeyed.upload |= kind == Some(CommandType::UploadPending);
            if kind == Some(CommandType::RestartAgent) {
                self.ask_restart();
            }
        }
        Ok(true)
    }

    async fn act(
        &self,
        db: Db<'_>,
        identity: &Identity,
        (kind, taken): (Option<CommandType>, &TakenCommand),
    ) -> Result<Outcome, StoreError> {
        let Some(kind) = kind else {
            return Ok(Outcome::refused("this device doesn't know such a command"));
        };
        let args = match read(kind, &taken.args) {
            Ok(args) => args,
            Err(why) => return Ok(Outcome::refused(format!("bad arguments: {why}"))),
        };
        if self.server_now(db, identity).await? >= taken.expires_at {
            return Ok(Outcome::refused("it had expired before this device could act on it"));
        }
        match kind {
            CommandType::SyncEmployees => {
                let current = identity::current(&mut *db).await?;
                if current.is_none_or(|current| current.id != identity.id) {
                    let why = "this device was enrolled anew; this identity has no manifest";
                    return Ok(Outcome::refused(why));
                }
                contact::forget_roster(db, identity.id).await?;
                Ok(Outcome::done(None))
            }
            // The text is kept with the command, and shown from there.
            CommandType::ShowMessage | CommandType::UploadPending | CommandType::RestartAgent => {
                Ok(Outcome::done(None))
            }
            CommandType::ForgetPhotos => self.forget(db, &args).await,
        }
    }

    /// Rows first, then files: a row that is marked is never sent. A file that can't be deleted now
    /// is when the agent starts next.
    async fn forget(&self, db: Db<'_>, args: &CommandArgs) -> Result<Outcome, StoreError> {
        let Some(employee) = args.employee else { return Ok(Outcome::refused("whose?")) };
        let now = self.now().time;
        let files = photos::forget_of(db, employee, now, args.taken_until).await?;
        for file in &files {
            if let Err(error) = self.folder.forget_photo(*file) {
                tracing::error!(%error, "a photo's file can't be deleted");
                let detail = "a photo can't be deleted now: it is sent no more, and is deleted \
                              when the agent starts next";
                let (status, detail) = (CommandStatus::Failed, Some(detail.to_owned()));
                return Ok(Outcome { status, detail });
            }
        }
        Ok(Outcome::done(Some(format!("{} photos erased", files.len()))))
    }

    /// The server's clock, as far as this device knows it.
    async fn server_now(&self, db: Db<'_>, identity: &Identity) -> Result<Time, StoreError> {
        let contact = contact::of(db, identity.id).await?;
        Ok(contact.server_now(self.now().time))
    }
}

/// The arguments of such a command. One that this program doesn't know might mean anything, so none
/// is passed over.
fn read(kind: CommandType, args: &str) -> Result<CommandArgs, String> {
    let read: CommandArgs = strict_json::parse(args.as_bytes()).map_err(|error| match error {
        Ok(malformed) => malformed.to_string(),
        Err(unfit) => unfit.to_string(),
    })?;
    read.check(kind).map_err(|error| error.to_string())?;
    Ok(read)
}
