//! Pages of a list: rows, where the next page starts, whether there is one.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    ask::{
        cursor,
        extract::page_limit,
        limits::{PAGE_DEFAULT, PAGE_MAX},
        walk::Walk,
    },
    problem::Refusal,
    state::App,
};

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// Where the next page starts; null when there is none.
    pub next_cursor: Option<String>,
    /// Whether there is a next page.
    pub has_more: bool,
}

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The most rows, 1 to 1,000; 100 unless given.
    pub limit: Option<u32>,
}

impl PageQuery {
    /// The limit.
    ///
    /// # Errors
    /// When it is out of range.
    pub fn limit(&self) -> Result<u32, Refusal> {
        page_limit(self.limit, PAGE_DEFAULT, PAGE_MAX)
    }

    /// The place after which the page starts: the key of the last row of the page before.
    ///
    /// # Errors
    /// When the cursor isn't one of this walk.
    pub fn place<const N: usize>(
        &self,
        app: &App,
        walk: &Walk,
    ) -> Result<Option<[u8; N]>, Refusal> {
        place(app, walk, self.cursor.as_deref())
    }
}

/// The place of a cursor, a key.
///
/// # Errors
/// When it isn't one of this walk.
pub fn place<const N: usize>(
    app: &App,
    walk: &Walk,
    cursor: Option<&str>,
) -> Result<Option<[u8; N]>, Refusal> {
    let Some(text) = cursor else { return Ok(None) };
    let read = cursor::open(text)?;
    let place = walk.prove(&app.deployment, &[], &read)?;
    place.try_into().map(Some).map_err(|_| cursor::invalid())
}

impl<T> Page<T> {
    /// The page of these rows.
    pub fn of<K: AsRef<[u8]>>(
        app: &App,
        walk: &Walk,
        data: Vec<T>,
        has_more: bool,
        key: impl Fn(&T) -> K,
    ) -> Self {
        let last = data.last().filter(|_| has_more);
        let next_cursor = last.map(|last| walk.cursor(&app.deployment, &[], key(last).as_ref()));
        Self { data, next_cursor, has_more }
    }
}
