//! `punchtrail punch list`: from the read model that a server keeps.

use anyhow::bail;
use clap::Args;
use punchtrail_domain::site::SiteRules;
use punchtrail_infra::{
    people::{
        directory,
        moment::{self, Moment},
    },
    sites,
};
use punchtrail_projections::{
    engine::page::Order,
    punches::{
        PunchView,
        timeline::{self, Filter},
    },
};
use punchtrail_protocol::{EmployeeId, SiteId, vocabulary::Standing};
use serde_json::json;

use super::{
    answer::{Answer, table_or},
    look::{NONE, Names},
    projection,
    source::Opened,
};

/// The most that a list shows.
const LISTED_MAX: u32 = 1_000;

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those of this site: a name or an id
    #[arg(long)]
    site: Option<String>,
    /// Only those of this person: a name, a badge, an external id or an id
    #[arg(long)]
    employee: Option<String>,
    /// Only those that this device captured: a name or an id
    #[arg(long)]
    device: Option<String>,
    /// Only those that are `recorded`, `accepted`, `referred`, `rejected` or `voided`
    #[arg(long)]
    standing: Option<Standing>,
    /// Only those from then on: a day, from its beginning, or a time
    #[arg(long, value_name = "WHEN")]
    from: Option<Moment>,
    /// Only those until then: a day, which is the last one, or a time
    #[arg(long, value_name = "WHEN")]
    to: Option<Moment>,
    /// The earliest first
    #[arg(long)]
    oldest: bool,
    /// The most punches
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(LISTED_MAX)))]
    limit: u32,
}

impl List {
    pub(super) async fn run(self, opened: &Opened) -> anyhow::Result<Answer> {
        let (site, employee) = (
            opened.site_if(self.site.as_deref()).await?,
            opened.employee_if(self.employee.as_deref()).await?,
        );
        let device = match &self.device {
            Some(named) => Some(opened.device(named).await?),
            None => None,
        };
        let rules = self.calendar(opened, site, employee).await?;
        let filter = Filter {
            employee,
            site,
            within: None,
            device,
            standing: self.standing,
            from: self.from.map(|from| from.begins(&rules)),
            to: self.to.map(|to| to.ends(&rules)),
        };
        let order = if self.oldest { Order::OldestFirst } else { Order::NewestFirst };
        let pool = &opened.pools.reader;
        let behind = projection::behind(opened, &[timeline::NAME]).await?;
        let mut found = timeline::list(pool, &filter, order, None, self.limit).await?;
        let people: Vec<_> = found.rows.iter().filter_map(|punch| punch.employee).collect();
        let devices: Vec<_> = found.rows.iter().filter_map(|punch| punch.device).collect();
        let names = Names::of(opened).await?.with_people(opened, people.iter().copied()).await?;
        let names = names.with_devices(opened, devices).await?;
        let known = directory::employee_names(pool, &people).await?;
        for punch in &mut found.rows {
            punch.employee_name = punch.employee.and_then(|who| known.get(&who).cloned());
        }
        let rows: Vec<_> = found.rows.iter().map(|punch| row(punch, &names)).collect();
        let heading = ["punch", "when", "who", "what", "where", "device", "standing"];
        let mut text = table_or(&heading, &rows, "No such punch.");
        if found.more {
            text.push_str(&format!("\n\nThese are the first {}; more follow.", self.limit));
        }
        let object = json!({"punches": found.rows, "has_more": found.more});
        Ok(Answer::new(&object, text).noting(behind))
    }

    /// The calendar that days are of: the site's, the person's, or the only one that there is.
    async fn calendar(
        &self,
        opened: &Opened,
        site: Option<SiteId>,
        employee: Option<EmployeeId>,
    ) -> anyhow::Result<SiteRules> {
        let ledger = &opened.ledger;
        let gives_day = [self.from, self.to].iter().any(|at| matches!(at, Some(Moment::Day(_))));
        match (site, employee) {
            _ if !gives_day => Ok(SiteRules::default()),
            (Some(site), _) => Ok(moment::rules_of(ledger, site).await?),
            (None, Some(employee)) => Ok(moment::rules_of_home(ledger, employee).await?),
            (None, None) => {
                let sites = sites::list(&opened.pools.reader, ledger.now()).await?;
                let differ = sites.windows(2).any(|pair| pair[0].tz != pair[1].tz);
                match sites.first() {
                    Some(site) if !differ => Ok(moment::rules_of(ledger, site.site).await?),
                    _ => bail!(
                        "days begin at other times at other sites; give --site or --employee, or \
                         a time with its offset (2026-11-26T18:00:00+01:00)"
                    ),
                }
            }
        }
    }
}

fn row(punch: &PunchView, names: &Names) -> Vec<String> {
    let dash = || NONE.to_owned();
    let reasons: Vec<_> = punch.reasons.iter().map(|reason| reason.replace('_', " ")).collect();
    let standing = punch.standing.as_str();
    vec![
        punch.punch.to_string(),
        names.at(Some(punch.site), punch.effective_at),
        punch.employee.map_or_else(dash, |who| names.person(who)),
        punch.kind.to_string().replace('_', " "),
        names.site(punch.site),
        match punch.device {
            Some(device) => names.device(device),
            None => "added".to_owned(),
        },
        match reasons.is_empty() {
            true => standing.to_owned(),
            false => format!("{standing}: {}", reasons.join(", ")),
        },
    ]
}
