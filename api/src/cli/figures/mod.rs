//! `punchtrail figures`: what went wrong week by week, and how soon it was put right. Read from the
//! read model, which a server fills.

mod plot;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use punchtrail_projections::figures::{self, DisputeFigures, FiguresView, Week, Weeks};
use punchtrail_protocol::{SiteId, dispute::Day};

use super::{
    answer::{Answer, table},
    projection,
    source::{Need, Opened, Source},
};

/// The most rows that are written to a file.
const ROWS_MAX: u32 = 1_000_000;

#[derive(Debug, Args)]
pub(super) struct Figures {
    /// Those of this site, a name or an id; of all together without it
    #[arg(long)]
    site: Option<String>,
    /// From the week on that this day is in, like 2026-11-21; the last 12 weeks unless given
    #[arg(long, value_name = "DAY")]
    from: Option<Day>,
    /// To the week that this day is in; that of the newest event unless given
    #[arg(long, value_name = "DAY")]
    to: Option<Day>,
    /// Write them to this file, too, a row each site, week and figure
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw them into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Figures {
    pub(super) async fn run(self, source: Source) -> anyhow::Result<Answer> {
        source.with(Need::Existing, async |opened| self.done(opened).await).await
    }

    async fn done(&self, opened: &Opened) -> anyhow::Result<Answer> {
        let site = opened.site_if(self.site.as_deref()).await?;
        let pool = &opened.pools.reader;
        let behind = projection::behind(opened, &[figures::NAME]).await?;
        let newest = figures::newest(pool, site).await?;
        let weeks = Weeks::of(self.from, self.to, newest)?;
        let view = figures::figures(pool, site, weeks).await?;
        if let Some(path) = &self.csv {
            write(path, &csv(opened, site, weeks).await?)?;
        }
        if let Some(path) = &self.svg {
            let named = self.site.as_deref().unwrap_or("all sites");
            write(path, plot::plot(&view, named)?.as_bytes())?;
        }
        Ok(Answer::new(&view, text(&view)).noting(behind))
    }
}

async fn csv(opened: &Opened, site: Option<SiteId>, weeks: Weeks) -> anyhow::Result<Vec<u8>> {
    match figures::rows(&opened.pools.reader, site, weeks, ROWS_MAX).await? {
        Some(rows) => Ok(figures::csv(&rows)?),
        None => bail!(
            "these are more than {ROWS_MAX} rows; ask for one site, or for fewer weeks. Nothing \
             was written"
        ),
    }
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("{} can't be written", path.display()))
}

fn text(view: &FiguresView) -> String {
    let heading = [
        "week", "punches", "half in", "referred", "ruled", "opened", "resolved", "reopened",
        "median", "p90",
    ];
    let weeks: Vec<_> = view.weeks.iter().map(week).collect();
    let mut text = table(&heading, &weeks);
    if view.causes.is_empty() {
        text.push_str("\nNothing was disputed in these weeks.");
        return text;
    }
    let heading = ["cause", "opened", "waiting", "resolved", "reopened", "median", "p90"];
    let causes = view.causes.iter().map(|cause| {
        let of_it = &cause.figures;
        vec![
            of_it.cause.as_str().to_owned(),
            of_it.opened.to_string(),
            cause.waiting.to_string(),
            of_it.resolved.to_string(),
            of_it.reopened.to_string(),
            hours(of_it.median_hours),
            hours(of_it.p90_hours),
        ]
    });
    text.push_str("\nDisputes by cause, the most frequent first:\n");
    text.push_str(&table(&heading, &causes.collect::<Vec<_>>()));
    text
}

fn week(week: &Week) -> Vec<String> {
    let figures = &week.figures;
    let DisputeFigures { opened, resolved, reopened, median_hours, p90_hours, .. } =
        figures.disputes;
    let ruled: u64 = figures.referrals.ruled.values().sum();
    let delay = match (figures.sync_delay.median_at_most_s, figures.captured) {
        (_, 0) => "-".to_owned(),
        (Some(at_most_s), _) => plot::duration(at_most_s),
        (None, _) => "over 7 d".to_owned(),
    };
    vec![
        week.week.clone(),
        figures.captured.to_string(),
        delay,
        figures.referrals.referred.to_string(),
        ruled.to_string(),
        opened.to_string(),
        resolved.to_string(),
        reopened.to_string(),
        hours(median_hours),
        hours(p90_hours),
    ]
}

fn hours(hours: Option<f64>) -> String {
    hours.map_or_else(|| "-".to_owned(), |hours| format!("{hours:.1} h"))
}
