//! `punchtrail employee badge`: issued, given back, lost, listed.

use clap::Subcommand;
use punchtrail_domain::employee::BadgeEnd;
use punchtrail_infra::{
    ledger::Metadata,
    people::{
        badges::{self, HeldBadge, Which},
        moment::{self, Moment},
    },
};
use punchtrail_protocol::Time;
use serde_json::json;

use super::{answered, staff::at_home};
use crate::cli::{
    answer::{Answer, table_or},
    look::Names,
    source::Opened,
};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Badge {
    /// Issue a badge to a person; it has one holder at a time
    Issue {
        /// Who: a name, a badge, an external id or an id
        employee: String,
        /// The badge's number
        badge: String,
        /// Since when: a day, from its beginning, or a time; now unless given
        #[arg(long, value_name = "WHEN")]
        from: Option<Moment>,
        /// It changed hands then: whoever held it holds it until then
        #[arg(long)]
        reissue: bool,
    },
    /// Note that a person gave a badge back, or correct when
    Return(End),
    /// Note that a person lost a badge, or correct when
    Lost(End),
    /// List the badges that a person holds and held
    List {
        /// Who: a name, a badge, an external id or an id
        employee: String,
    },
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct End {
    /// Who: a name, a badge, an external id or an id
    employee: String,
    /// The badge's number
    badge: String,
    /// Since when: a day, which is the last one that they hold it, or a time; now unless given
    #[arg(long, value_name = "WHEN")]
    at: Option<Moment>,
}

impl Badge {
    pub(super) async fn run(self, opened: &Opened) -> anyhow::Result<Answer> {
        match self {
            Self::Issue { employee, badge, from, reissue } => {
                issue(opened, &employee, &badge, from, reissue).await
            }
            Self::Return(badge) => end(opened, badge, BadgeEnd::Returned).await,
            Self::Lost(badge) => end(opened, badge, BadgeEnd::Lost).await,
            Self::List { employee } => list(opened, &employee).await,
        }
    }
}

async fn issue(
    opened: &Opened,
    employee: &str,
    badge: &str,
    from: Option<Moment>,
    reissue: bool,
) -> anyhow::Result<Answer> {
    let (ledger, by) = (&opened.ledger, Metadata::default());
    let employee = opened.employee(employee).await?;
    let number = badges::number(badge)?;
    let home = moment::rules_of_home(ledger, employee).await?;
    let from = from.map_or_else(|| ledger.now(), |from| from.begins(&home));
    let changed = match reissue {
        true => badges::reissue(ledger, employee, &number, from, &by).await?,
        false => badges::issue(ledger, employee, &number, from, &by).await?,
    };
    let from = at_home(opened, employee, from).await?;
    Ok(answered(&changed, &format!("Badge {number} is theirs from {from} on.")))
}

async fn end(opened: &Opened, ended: End, because: BadgeEnd) -> anyhow::Result<Answer> {
    let (ledger, by) = (&opened.ledger, Metadata::default());
    let employee = opened.employee(&ended.employee).await?;
    let which = Which::Number(badges::number(&ended.badge)?);
    let home = moment::rules_of_home(ledger, employee).await?;
    let until = ended.at.map_or_else(|| ledger.now(), |at| at.ends(&home));
    let changed = badges::end(ledger, employee, &which, until, because, &by).await?;
    let until = at_home(opened, employee, until).await?;
    Ok(answered(&changed, &format!("Badge {} was theirs until {until}.", ended.badge)))
}

async fn list(opened: &Opened, employee: &str) -> anyhow::Result<Answer> {
    let employee = opened.employee(employee).await?;
    let held = badges::list(&opened.ledger, employee).await?.unwrap_or_default();
    let home = moment::home_of(&opened.ledger, employee).await?;
    let names = Names::of(opened).await?;
    let time = |at: Option<Time>| at.map(|at| names.at(home, at)).unwrap_or_default();
    let row = |held: &HeldBadge| {
        let because = held.because.map(BadgeEnd::as_str).unwrap_or_default();
        vec![held.number.clone(), time(held.from), time(held.until), because.to_owned()]
    };
    let rows: Vec<_> = held.iter().map(row).collect();
    let object = json!({"employee": employee, "badges": held});
    let heading = ["badge", "from", "until", "because"];
    Ok(Answer::new(&object, table_or(&heading, &rows, "They never held a badge.")))
}
