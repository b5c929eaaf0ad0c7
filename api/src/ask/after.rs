//! `Punchtrail-After: <position>`: a read that must show at least what was written up to there.
//! Writes answer with their position; whoever gives it back here reads their own writes.

use axum::{extract::FromRequestParts, http::request::Parts};
use punchtrail_protocol::{Position, capture::INTEGER_LIMIT};
use tokio::time::Instant;

use crate::{
    ask::limits::AFTER_MAX,
    problem::{Code, Refusal},
    state::App,
};

/// The header's name, in lower case.
pub const HEADER: &str = "punchtrail-after";

/// The position that a read asks for.
#[derive(Debug, Clone, Copy)]
pub struct After(Option<Position>);

impl<S: Sync> FromRequestParts<S> for After {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Some(value) = parts.headers.get(HEADER) else { return Ok(Self(None)) };
        let number = value.to_str().ok().and_then(|text| text.parse().ok());
        match number.filter(|number| *number < INTEGER_LIMIT) {
            Some(position) => Ok(Self(Some(Position(position)))),
            None => Err(Refusal::field(
                HEADER,
                "invalid_value",
                "The header holds a position, a number below 2^53.",
            )),
        }
    }
}

impl After {
    /// Waits until these read models are there.
    ///
    /// # Errors
    /// 422 when the ledger itself isn't, 503 when a model isn't in time.
    pub async fn reached(self, app: &App, models: &[&str]) -> Result<(), Refusal> {
        let Some(position) = self.0 else { return Ok(()) };
        if position > app.ledger.seen() {
            let head = app.ledger.head().await?;
            if position > head {
                return Err(Refusal::field(
                    HEADER,
                    "beyond_head",
                    format!("The ledger ends at position {head}; {position} is not written."),
                ));
            }
        }
        after(app, models, position).await
    }
}

/// Waits until these read models have taken the ledger up to there.
///
/// # Errors
/// 503 when one isn't there in time.
pub async fn after(app: &App, models: &[&str], position: Position) -> Result<(), Refusal> {
    let deadline = Instant::now() + AFTER_MAX;
    app.projections.wait_for(models, position, deadline).await.map_err(|behind| {
        let detail = format!(
            "The read model `{}` stands at position {}, not yet at {position}. Ask again.",
            behind.name, behind.position
        );
        Refusal::new(Code::ReadBehind, detail).to_be_retried()
    })
}
