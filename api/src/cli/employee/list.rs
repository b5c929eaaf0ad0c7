//! `punchtrail employee list`: from the read models, so what a server has brought along.

use punchtrail_projections::people::{employees, roster};
use serde_json::json;

use crate::cli::{
    answer::{Answer, table_or},
    look::{NONE, Names, or_none},
    projection,
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
    let site = opened.site_if(site).await?;
    let behind = projection::behind(opened, &[roster::NAME]).await?;
    let (people, more) = match search {
        Some(typed) => (employees::search(pool, site, typed).await?, false),
        None => {
            let found = employees::list(pool, (site, None), None, LISTED_MAX).await?;
            (found.rows, found.more)
        }
    };
    let (names, with_ids) = (Names::of(opened).await?, opened.source.look.ids);
    let rows: Vec<Vec<String>> = people
        .iter()
        .map(|person| {
            let sites: Vec<String> = person.sites.iter().map(|site| names.site(*site)).collect();
            let home = person.sites.first().copied();
            let leaves = person.departed_at.map(|at| names.at(home, at));
            let cells = [
                or_none(person.name.as_deref()),
                person.badges.join(", "),
                sites.join(", "),
                or_none(person.external_id.as_deref()),
                leaves.unwrap_or_else(|| NONE.to_owned()),
            ];
            with_ids.then(|| person.employee.to_string()).into_iter().chain(cells).collect()
        })
        .collect();
    let heading = ["id", "name", "badges", "works at", "external id", "leaves"];
    let none = "Nobody. `employee add` and `employee import` take people on.";
    let mut text = table_or(&heading[usize::from(!with_ids)..], &rows, none);
    if more {
        text.push_str(&format!("\n\nThese are the first {LISTED_MAX}; more follow."));
    }
    let object = json!({"employees": people, "has_more": more});
    Ok(Answer::new(&object, text).noting(behind))
}
