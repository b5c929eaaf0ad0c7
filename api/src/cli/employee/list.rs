//! `punchtrail employee list`: from the read models, so what a server has brought along.

use std::collections::HashMap;

use punchtrail_infra::sites;
use punchtrail_projections::people::employees;
use punchtrail_protocol::SiteId;
use serde_json::json;

use crate::cli::{
    answer::{Answer, table},
    source::Opened,
};

/// The most that a list shows.
const LISTED_MAX: u32 = 1_000;

pub(super) async fn list(
    opened: &Opened,
    site: Option<&str>,
    search: Option<&str>,
) -> anyhow::Result<Answer> {
    let pool = &opened.pools.reader;
    let site = match site {
        Some(named) => Some(opened.site(named).await?),
        None => None,
    };
    let (people, more) = match search {
        Some(typed) => (employees::search(pool, site, typed).await?, false),
        None => {
            let found = employees::list(pool, (site, None), None, LISTED_MAX).await?;
            (found.rows, found.more)
        }
    };
    let sites = sites::list(&opened.pools.writer, opened.ledger.now()).await?;
    let names: HashMap<SiteId, &str> =
        sites.iter().map(|site| (site.site, site.name.as_str())).collect();
    let or_dash = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".to_owned());
    let rows: Vec<Vec<String>> = people
        .iter()
        .map(|person| {
            let at = |site: &SiteId| names.get(site).map_or("-".to_owned(), ToString::to_string);
            vec![
                person.employee.to_string(),
                person.badges.join(", "),
                or_dash(&person.name),
                person.sites.iter().map(at).collect::<Vec<_>>().join(", "),
                or_dash(&person.external_id),
                person.departed_at.map_or_else(|| "-".to_owned(), |at| at.to_string()),
            ]
        })
        .collect();
    let mut text = table(&["employee", "badges", "name", "sites", "external id", "leaves"], &rows);
    if more {
        text.push_str(&format!("\n\nThese are the first {LISTED_MAX}; more follow."));
    }
    Ok(Answer::new(&json!({"employees": people, "has_more": more}), text))
}
