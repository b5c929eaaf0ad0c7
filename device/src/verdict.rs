//! What the server made of a punch's pictures, asked while the worker stands there.
//!
//! It holds nothing but codes, so it needs no PIN, and it is given for punches of this device
//! alone. Whatever comes of the question, or nothing in time, the punch stands.

use std::{str::FromStr, time::Duration};

use punchtrail_protocol::{
    PunchId,
    guidance::{Guidance, Language},
    wire::VERDICT_WAIT_S_MAX,
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    client::{AddressError, CallError, Server, VerdictOutcome},
    device::Device,
    retake::{Which, whose},
    store::{StoreError, attachments, contact, identity::Identity},
};

/// Pause before a verdict is looked for again, in milliseconds: while the agent delivers what it is
/// about, and after an answer that came too early.
pub const VERDICT_LOOK_MS: u64 = 300;
/// The same after a refusal, in milliseconds.
pub const VERDICT_AGAIN_MS: u64 = 1_000;

/// What became of a punch's pictures so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    pub punch: PunchId,
    /// Where the punch stands: `recorded`, `accepted`, `referred`, `rejected`, `voided`.
    pub standing: String,
    /// Which attempt the guidance is about: 0 for the capture's own frame; none before a verdict.
    pub attempt: Option<u32>,
    /// What the worker can do.
    pub guidance: Vec<Advice>,
    /// Whether another picture may help.
    pub retake: bool,
    /// Position of the punch's newest event.
    pub position: u64,
}

/// One thing that the worker can do, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    pub code: String,
    /// None of a code that a later version of the server has.
    pub text: Option<&'static str>,
}

impl Advice {
    /// `code`, in `language`.
    pub fn of(code: String, language: Language) -> Self {
        let text = Guidance::from_str(&code).ok().map(|known| known.text(language));
        Self { code, text }
    }
}

/// Why there is no verdict. The punch stands in any of these cases, and the text says so.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// Never captured here, or forgotten since.
    #[error("this device holds no such punch ({0}); a verdict is given where the punch was made")]
    UnknownPunch(Which),
    /// The server wants to be left alone for a while.
    #[error("no verdict: the server asked for a pause. The punch stands; ask again later")]
    Paused,
    #[error("no verdict: {0}. The punch stands; ask again later")]
    Call(#[from] CallError),
    #[error("no verdict: {0}. The punch stands")]
    Address(#[from] AddressError),
    #[error("no verdict: {0}. The punch stands")]
    Store(#[from] StoreError),
}

impl VerdictError {
    /// A stable word for it.
    pub fn code(&self) -> &str {
        match self {
            Self::UnknownPunch(_) => "unknown_punch",
            Self::Paused => "paused",
            Self::Call(error) => error.code(),
            Self::Address(_) => "address",
            Self::Store(_) => "store",
        }
    }
}

/// How far a punch and its pictures are on their way.
struct Way {
    /// Whether the server knows of all that this device knows.
    arrived: bool,
    /// The last attempt that it takes.
    newest: u32,
}

impl Device {
    /// Asks for the verdict on a punch's newest picture, and waits for it up to `wait_s` seconds:
    /// while the agent delivers it, then while the server looks. Without a wait it is one call.
    /// Words are in `language`, or in the site's first.
    ///
    /// # Errors
    /// When there is no answer; the punch stands.
    pub async fn verdict(
        &self,
        which: Which,
        wait_s: u32,
        language: Option<&str>,
    ) -> Result<Judged, VerdictError> {
        let until = Instant::now() + Duration::from_secs(u64::from(wait_s.min(VERDICT_WAIT_S_MAX)));
        let (identity, punch, spoken) = self.asked_about(which, language).await?;
        let server = Server::with_patience(&identity.server, self.options.call_ms)?
            .with_token(&identity.token)?;
        let judged = |outcome: VerdictOutcome| Judged {
            punch,
            standing: outcome.standing,
            attempt: outcome.attempt,
            guidance: outcome.guidance.into_iter().map(|code| Advice::of(code, spoken)).collect(),
            retake: outcome.retake,
            position: outcome.position,
        };
        loop {
            let Way { arrived, newest } = self.way(&identity, punch).await?;
            let left = until.saturating_duration_since(Instant::now());
            let pause_ms = if !arrived && !left.is_zero() && self.folder.agent().is_some() {
                VERDICT_LOOK_MS
            } else {
                match server.verdict(punch, left.as_secs() as u32).await {
                    Ok(outcome) if outcome.attempt.is_some_and(|attempt| attempt >= newest) => {
                        return Ok(judged(outcome));
                    }
                    Ok(outcome) if until <= Instant::now() => return Ok(judged(outcome)),
                    Ok(_) => VERDICT_LOOK_MS,
                    // Its punch is on the way, or another verdict is being waited for.
                    Err(error) if waits(&error) && Instant::now() < until => VERDICT_AGAIN_MS,
                    Err(error) => return Err(error.into()),
                }
            };
            let left = until.saturating_duration_since(Instant::now());
            sleep(Duration::from_millis(pause_ms).min(left)).await;
        }
    }

    async fn asked_about(
        &self,
        which: Which,
        language: Option<&str>,
    ) -> Result<(Identity, PunchId, Language), VerdictError> {
        let mut db = self.store.read().await?;
        let (identity, found) =
            whose(&mut db, which).await?.ok_or(VerdictError::UnknownPunch(which))?;
        let contact = contact::of(&mut db, identity.id).await?;
        let now = self.now();
        if contact.hold.is_some_and(|(boot, until_ms)| {
            // The floor after any failure is no pause that the server asked for.
            boot == now.boot && until_ms > now.uptime_ms + VERDICT_AGAIN_MS
        }) {
            return Err(VerdictError::Paused);
        }
        let first = contact.policy.and_then(|policy| policy.languages.into_iter().next());
        let language = language.map_or_else(
            || first.as_deref().map_or_else(Language::default, Language::of),
            Language::of,
        );
        Ok((identity, found.punch, language))
    }

    /// The language that workers are told in here: the site's first.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn language(&self) -> Result<Language, StoreError> {
        let Some(identity) = self.identity().await? else { return Ok(Language::default()) };
        let contact = contact::of(&mut *self.store.read().await?, identity.id).await?;
        let first = contact.policy.and_then(|policy| policy.languages.into_iter().next());
        Ok(first.as_deref().map_or_else(Language::default, Language::of))
    }

    async fn way(&self, identity: &Identity, punch: PunchId) -> Result<Way, StoreError> {
        let mut db = self.store.read().await?;
        let found = crate::store::outbox::find(&mut db, punch).await?;
        let attempts = attachments::attempts(&mut db, identity.id, punch).await?;
        let acknowledged = found.is_none_or(|found| found.acknowledged);
        Ok(Way { arrived: acknowledged && attempts.waiting == 0, newest: attempts.last_good })
    }
}

fn waits(error: &CallError) -> bool {
    matches!(error.refused_with(), Some(404))
        || matches!(error, CallError::Busy { code, .. } if code == "one_at_a_time")
}
