//! The HTTP API, asked with an operator's key.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, bail};
use punchtrail_testkit::eventually;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::cli::Cli;

/// An answer on two busy cores.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Rows of a page.
const PAGE: usize = 1_000;

/// Someone with an operator's key.
#[derive(Debug, Clone)]
pub struct Operator {
    base: String,
    key: String,
    http: reqwest::Client,
}

impl Operator {
    /// With a new key named `name`, for the server at `url`.
    ///
    /// # Errors
    /// When no key can be made.
    pub async fn new(cli: &Cli, url: &str, name: &str) -> anyhow::Result<Self> {
        let key = cli.text(&["key", "new", "--name", name], "key").await?;
        let http = reqwest::Client::builder().timeout(ANSWER_WAIT).build()?;
        Ok(Self { base: url.to_owned(), key, http })
    }

    /// The server is at `url` now.
    pub fn move_to(&mut self, url: &str) {
        url.clone_into(&mut self.base);
    }

    /// Where the server is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The key, for showing how to ask by hand.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Asks, and gives the answer whatever it is.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request =
            self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| format!("no answer to {path}"))?;
        let status = answer.status();
        let text = answer.text().await?;
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok((status, value))
    }

    /// Reads what must be there.
    ///
    /// # Errors
    /// When the answer isn't a success.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        success(path, self.ask(Method::GET, path, None).await?)
    }

    /// Does what must succeed.
    ///
    /// # Errors
    /// When the answer isn't a success.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        success(path, self.ask(Method::POST, path, Some(body)).await?)
    }

    /// All rows of a list, page by page; `path` has no query of its own.
    ///
    /// # Errors
    /// When a page isn't a success.
    pub async fn rows(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut rows = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("{path}?limit={PAGE}{cursor}")).await?;
            rows.extend(page["data"].as_array().context("a page has `data`")?.iter().cloned());
            match page["next_cursor"].as_str().filter(|_| page["has_more"] == true) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(rows),
            }
        }
    }

    /// Every event of the ledger, in its order.
    ///
    /// # Errors
    /// When a page isn't a success.
    pub async fn events(&self) -> anyhow::Result<Vec<Value>> {
        let mut events = Vec::new();
        let mut after = 0;
        loop {
            let page = self.get(&format!("/v1/ledger/events?limit={PAGE}&after={after}")).await?;
            events.extend(page["data"].as_array().context("a page has `data`")?.iter().cloned());
            after = page["next_after"].as_u64().context("a page has `next_after`")?;
            if page["has_more"] != true {
                return Ok(events);
            }
        }
    }

    /// The ledger's head.
    ///
    /// # Errors
    /// When it isn't to be had.
    pub async fn head(&self) -> anyhow::Result<u64> {
        self.get("/v1/ledger").await?["position"].as_u64().context("the ledger has a position")
    }

    /// Waits until adjudicator and every read model stand at the ledger's head, and gives that.
    /// With `signed`, until the newest checkpoint covers it too.
    ///
    /// # Errors
    /// When they don't within `within`, with how far they are.
    pub async fn settled(&self, signed: bool, within: Duration) -> anyhow::Result<u64> {
        let mut seen = Value::Null;
        let waited = eventually("followers at the head", within, async || {
            let Ok(ledger) = self.get("/v1/ledger").await else { return Ok(None) };
            let head = ledger["position"].as_u64();
            let there = ledger["followers"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|follower| signed || follower["name"] != "checkpoints")
                .all(|follower| follower["position"].as_u64() == head);
            seen = ledger.clone();
            // The answer's head may be older than its followers: than what they have written
            // meanwhile.
            let Ok(now) = self.head().await else { return Ok(None) };
            Ok(head.filter(|head| there && *head == now))
        })
        .await;
        waited.with_context(|| format!("/v1/ledger says {seen}"))
    }

    /// Ids of people, by badge.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn employees(&self) -> anyhow::Result<HashMap<String, String>> {
        let rows = self.rows("/v1/employees").await?;
        let id = |row: &Value| {
            Some((row["badge"].as_str()?.to_owned(), row["employee"].as_str()?.to_owned()))
        };
        Ok(rows.iter().filter_map(id).collect())
    }
}

fn success(path: &str, (status, answer): (StatusCode, Value)) -> anyhow::Result<Value> {
    if !status.is_success() {
        bail!("{path} answers {status}: {answer}");
    }
    Ok(answer)
}
