//! Reading figures: some weeks of a site or of all.

use std::collections::BTreeMap;

use jiff::{ToSpan, civil::Date, tz::TimeZone};
use jiff_sqlx::{Date as SqlDate, Timestamp, ToSqlx};
use punchtrail_infra::postgres::Pool;
use punchtrail_protocol::{
    SiteId,
    dispute::{Day, DisputeCause},
};
use serde::Serialize;
use sqlx::{FromRow, Postgres, QueryBuilder};
use uuid::Uuid;

use super::{DELAYS, counted, fold::monday};

/// The most weeks that are read at once.
pub const WEEKS_MAX: i32 = 104;
/// Weeks unless asked otherwise.
pub const WEEKS_DEFAULT: i32 = 12;
/// The most sites that are listed beside the figures of all.
pub const SITES_MAX: u32 = 100;

/// Weeks one after the other, by their Mondays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weeks {
    first: Date,
    last: Date,
}

/// Weeks that can't be read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongWeeks {
    #[error("the last week lies before the first")]
    Backwards,
    #[error("at most {WEEKS_MAX} weeks are read at once; ask for fewer")]
    TooMany,
}

impl Weeks {
    /// The weeks from one that a day is in to another: unless asked otherwise the newest one, and
    /// [`WEEKS_DEFAULT`] in all.
    ///
    /// # Errors
    /// When they are none, or too many.
    pub fn of(from: Option<Day>, to: Option<Day>, newest: Day) -> Result<Self, WrongWeeks> {
        let newest = match from {
            // What was asked for lies ahead: its one week, in which nothing is yet.
            Some(from) if to.is_none() => newest.max(from),
            _ => newest,
        };
        let last = monday(to.unwrap_or(newest).date());
        let before = (7 * (WEEKS_DEFAULT - 1)).days();
        let first = from.map_or_else(|| last.saturating_sub(before), |day| monday(day.date()));
        let weeks = Self { first, last };
        match weeks.count() {
            count if count < 1 => Err(WrongWeeks::Backwards),
            count if count > WEEKS_MAX => Err(WrongWeeks::TooMany),
            _ => Ok(weeks),
        }
    }

    /// How many.
    fn count(self) -> i32 {
        // Days between two dates are whole.
        let days = self.first.until(self.last).map_or(i32::MAX, |span| span.get_days());
        if days < 0 { 0 } else { days / 7 + 1 }
    }

    /// Their Mondays.
    fn mondays(self) -> impl Iterator<Item = Date> {
        (0..self.count()).map(move |week| self.first.saturating_add((7 * week).days()))
    }

    fn push(self, query: &mut QueryBuilder<'_, Postgres>, site: Option<SiteId>) {
        query.push(" where week between ").push_bind(self.first.to_sqlx());
        query.push(" and ").push_bind(self.last.to_sqlx());
        if let Some(site) = site {
            query.push(" and site = ").push_bind(site.uuid());
        }
    }
}

/// Counts, by code.
pub type Outcomes = BTreeMap<String, u64>;

/// Figures of some weeks.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FiguresView {
    /// Whose; null for all sites together.
    pub site: Option<SiteId>,
    /// The first day of the first week.
    pub from: Day,
    /// The last day of the last week.
    pub to: Day,
    /// Each week, also one in which nothing was.
    pub weeks: Vec<Week>,
    /// The weeks together.
    pub total: Figures,
    /// Why people disputed, the most frequent cause of these weeks first: where to look next.
    pub causes: Vec<CauseSummary>,
    /// The sites, those with most disputes in these weeks first, at most 100; none where one site
    /// was asked for.
    pub sites: Vec<SiteFigures>,
}

/// A week's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Week {
    /// By ISO 8601, like `2026-W47`.
    pub week: String,
    /// Its Monday.
    pub from: Day,
    #[serde(flatten)]
    pub figures: Figures,
}

/// What was counted. Everything counts when it was recorded, by the server's clock.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Figures {
    /// Punches that came from devices.
    pub captured: u64,
    pub sync_delay: SyncDelay,
    pub referrals: Referrals,
    pub verification: VerificationFigures,
    pub disputes: DisputeFigures,
}

/// How long after their capture punches were received; by the true time where the device's clock
/// is known to have been off.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SyncDelay {
    /// Half of the punches came within so many seconds; null for none, and where half came later
    /// than the last bound.
    pub median_at_most_s: Option<u64>,
    /// Nine in ten did.
    pub p90_at_most_s: Option<u64>,
    /// The buckets in which there are punches, the soonest first.
    pub buckets: Vec<DelayBucket>,
}

/// Punches that came later than the bucket before, and no later than this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DelayBucket {
    /// In seconds; null for those later than every bound.
    pub at_most_s: Option<u64>,
    pub punches: u64,
}

/// Punches that were referred to a person, and rulings on such ones.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Referrals {
    /// Punches that came to wait for a ruling.
    pub referred: u64,
    /// For each reason; a punch that waits for two is in both.
    pub reasons: Outcomes,
    /// How those that waited were ruled: `accepted`, `amended`, `rejected` or `voided` by a person,
    /// `verified` by a check of a picture, `withdrawn` where their doubts went by themselves.
    pub ruled: Outcomes,
    /// The same for each reason that they waited for.
    pub ruled_by_reason: BTreeMap<String, Outcomes>,
}

/// What checks of pictures came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerificationFigures {
    /// Matches, by provider.
    pub matched: Outcomes,
    /// Misses of each provider, by kind.
    pub missed: BTreeMap<String, Outcomes>,
    /// Without a verdict, by what was missing.
    pub unchecked: Outcomes,
}

/// Disputes.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DisputeFigures {
    pub opened: u64,
    /// Settled; one that was taken up again and settled again counts twice.
    pub resolved: u64,
    /// Taken up again.
    pub reopened: u64,
    /// Hours from when a dispute was opened or taken up again until it was settled: the middle one
    /// of those settled. Null for none.
    pub median_hours: Option<f64>,
    /// Nine in ten didn't wait longer.
    pub p90_hours: Option<f64>,
    /// How they were settled.
    pub settled: Outcomes,
    /// Those of each cause of which there was something.
    pub causes: Vec<CauseFigures>,
}

/// Disputes for one cause.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CauseFigures {
    pub cause: DisputeCause,
    pub opened: u64,
    pub resolved: u64,
    pub reopened: u64,
    pub median_hours: Option<f64>,
    pub p90_hours: Option<f64>,
}

/// A cause over all weeks that were asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CauseSummary {
    #[serde(flatten)]
    pub figures: CauseFigures,
    /// How many wait to be settled now, whenever they were opened.
    pub waiting: u64,
}

/// A site beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SiteFigures {
    pub site: SiteId,
    /// Punches that came from its devices.
    pub captured: u64,
    /// Punches that came to wait for a ruling.
    pub referred: u64,
    pub disputes_opened: u64,
    pub disputes_resolved: u64,
    pub disputes_reopened: u64,
}

#[derive(Debug, FromRow)]
struct Count {
    week: SqlDate,
    figure: String,
    code: String,
    detail: String,
    count: i64,
}

/// Waits of a week or of all, for a cause or for all.
#[derive(Debug, FromRow)]
struct Waits {
    week: Option<SqlDate>,
    cause: Option<String>,
    median_hours: f64,
    p90_hours: f64,
}

/// The day of the newest event, in the site's zone, or in UTC.
///
/// # Errors
/// When the database is out of reach.
pub async fn newest(pool: &Pool, site: Option<SiteId>) -> Result<Day, sqlx::Error> {
    let (at, tz): (Timestamp, Option<String>) = sqlx::query_as(
        "select recorded_at, (select tz from read.figure_sites where site = $1) from ledger_head",
    )
    .bind(site.map(SiteId::uuid))
    .fetch_one(pool)
    .await?;
    let zone = tz.and_then(|tz| TimeZone::get(&tz).ok()).unwrap_or(TimeZone::UTC);
    Ok(zone.to_datetime(at.to_jiff()).date().into())
}

/// The figures of these weeks, of a site or of all.
///
/// # Errors
/// When the database is out of reach.
pub async fn figures(
    pool: &Pool,
    site: Option<SiteId>,
    weeks: Weeks,
) -> Result<FiguresView, sqlx::Error> {
    let mut by_week: BTreeMap<Date, Figures> =
        weeks.mondays().map(|monday| (monday, Figures::default())).collect();
    let mut total = Figures::default();
    for count in counts(pool, site, weeks).await? {
        if let Some(figures) = by_week.get_mut(&count.week.to_jiff()) {
            figures.add(&count);
        }
        total.add(&count);
    }
    for waits in waits(pool, site, weeks).await? {
        let figures = match &waits.week {
            Some(week) => by_week.get_mut(&week.to_jiff()),
            None => Some(&mut total),
        };
        figures.into_iter().for_each(|figures| figures.disputes.take(&waits));
    }
    by_week.values_mut().chain([&mut total]).for_each(|figures| figures.sync_delay.reckon());
    let causes = causes(&total.disputes, &waiting(pool, site).await?);
    let sites = if site.is_none() { sites(pool, weeks).await? } else { Vec::new() };
    let last = weeks.last.saturating_add(6.days());
    let weeks_view = by_week.into_iter().map(|(monday, figures)| {
        let iso = monday.iso_week_date();
        let week = format!("{}-W{:02}", iso.year(), iso.week());
        Week { week, from: monday.into(), figures }
    });
    Ok(FiguresView {
        site,
        from: weeks.first.into(),
        to: last.into(),
        weeks: weeks_view.collect(),
        total,
        causes,
        sites,
    })
}

async fn counts(
    pool: &Pool,
    site: Option<SiteId>,
    weeks: Weeks,
) -> Result<Vec<Count>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(
        "select week, figure, code, detail, sum(count)::bigint as count from read.figures",
    );
    weeks.push(&mut query, site);
    query.push(" group by week, figure, code, detail");
    query.build_query_as().fetch_all(pool).await
}

async fn waits(pool: &Pool, site: Option<SiteId>, weeks: Weeks) -> Result<Vec<Waits>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(format!(
        "select week, cause, {PERCENTILES} from read.figure_waits"
    ));
    weeks.push(&mut query, site);
    query.push(" group by grouping sets ((week, cause), (week), (cause), ())");
    // Of no rows at all, the grand total would be a row of nulls.
    query.push(" having count(*) > 0");
    query.build_query_as().fetch_all(pool).await
}

const PERCENTILES: &str = "percentile_cont(0.5) within group (order by waited_ms) / 3600000 as \
     median_hours, percentile_cont(0.9) within group (order by waited_ms) / 3600000 as p90_hours";

async fn waiting(pool: &Pool, site: Option<SiteId>) -> Result<BTreeMap<String, u64>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(
        "select cause, count(*) from read.figure_disputes where waits_since is not null",
    );
    if let Some(site) = site {
        query.push(" and site = ").push_bind(site.uuid());
    }
    query.push(" group by cause");
    let rows: Vec<(String, i64)> = query.build_query_as().fetch_all(pool).await?;
    Ok(rows.into_iter().map(|(cause, count)| (cause, count.cast_unsigned())).collect())
}

async fn sites(pool: &Pool, weeks: Weeks) -> Result<Vec<SiteFigures>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("select site");
    for (figure, condition) in [
        (counted::CAPTURED, ""),
        (counted::REFERRED, " and code = ''"),
        (counted::OPENED, ""),
        (counted::RESOLVED, ""),
        (counted::REOPENED, ""),
    ] {
        query.push(", coalesce(sum(count) filter (where figure = ").push_bind(figure);
        query.push(condition).push("), 0)::bigint as ").push(figure);
    }
    query.push(" from read.figures");
    weeks.push(&mut query, None);
    query.push(" group by site order by disputes_opened desc, site limit ");
    query.push_bind(i64::from(SITES_MAX));
    let rows: Vec<SiteRow> = query.build_query_as().fetch_all(pool).await?;
    Ok(rows.into_iter().map(SiteFigures::from).collect())
}

/// A site and its counts, in the order of [`SiteFigures`].
type SiteRow = (Uuid, i64, i64, i64, i64, i64);

impl From<SiteRow> for SiteFigures {
    fn from((site, captured, referred, opened, resolved, reopened): SiteRow) -> Self {
        Self {
            site: SiteId(site),
            captured: captured.cast_unsigned(),
            referred: referred.cast_unsigned(),
            disputes_opened: opened.cast_unsigned(),
            disputes_resolved: resolved.cast_unsigned(),
            disputes_reopened: reopened.cast_unsigned(),
        }
    }
}

fn causes(total: &DisputeFigures, waiting: &BTreeMap<String, u64>) -> Vec<CauseSummary> {
    let waits = |cause: DisputeCause| waiting.get(cause.as_str()).copied().unwrap_or_default();
    let mut causes: Vec<CauseSummary> = <DisputeCause as strum::VariantArray>::VARIANTS
        .iter()
        .map(|cause| {
            let of_it = total.causes.iter().find(|figures| figures.cause == *cause);
            let figures = of_it.cloned().unwrap_or_else(|| CauseFigures::none(*cause));
            CauseSummary { figures, waiting: waits(*cause) }
        })
        .filter(|cause| cause.figures.is_something() || cause.waiting > 0)
        .collect();
    // Equal ones stay in the order of the causes.
    causes.sort_by_key(|cause| std::cmp::Reverse((cause.figures.opened, cause.waiting)));
    causes
}

fn add_to(outcomes: &mut Outcomes, code: &str, count: u64) {
    *outcomes.entry(code.to_owned()).or_default() += count;
}

impl Figures {
    fn add(&mut self, row: &Count) {
        let Count { figure, code, detail, .. } = row;
        let count = row.count.cast_unsigned();
        let Self { captured, sync_delay, referrals, verification, disputes } = self;
        match (figure.as_str(), detail.as_str()) {
            (counted::CAPTURED, _) => *captured += count,
            (counted::SYNC_DELAY, _) => sync_delay.add(code.parse().ok(), count),
            (counted::REFERRED, _) if code.is_empty() => referrals.referred += count,
            (counted::REFERRED, _) => add_to(&mut referrals.reasons, code, count),
            (counted::RULED, "") => add_to(&mut referrals.ruled, code, count),
            (counted::RULED, reason) => {
                let of_it = referrals.ruled_by_reason.entry(reason.to_owned()).or_default();
                add_to(of_it, code, count);
            }
            (counted::MATCHED, _) => add_to(&mut verification.matched, code, count),
            (counted::MISSED, miss) => {
                add_to(verification.missed.entry(code.clone()).or_default(), miss, count);
            }
            (counted::UNCHECKED, _) => add_to(&mut verification.unchecked, code, count),
            (counted::OPENED, _) => {
                disputes.opened += count;
                disputes.of(code, |cause| cause.opened += count);
            }
            (counted::RESOLVED, how) => {
                disputes.resolved += count;
                add_to(&mut disputes.settled, how, count);
                disputes.of(code, |cause| cause.resolved += count);
            }
            (counted::REOPENED, _) => {
                disputes.reopened += count;
                disputes.of(code, |cause| cause.reopened += count);
            }
            _ => {}
        }
    }
}

impl SyncDelay {
    fn add(&mut self, at_most_s: Option<u64>, punches: u64) {
        match self.buckets.iter_mut().find(|bucket| bucket.at_most_s == at_most_s) {
            Some(bucket) => bucket.punches += punches,
            None => self.buckets.push(DelayBucket { at_most_s, punches }),
        }
    }

    /// Puts the buckets in order and reads the quantiles off them.
    fn reckon(&mut self) {
        self.buckets.sort_by_key(|bucket| bucket.at_most_s.unwrap_or(u64::MAX));
        let all: u64 = self.buckets.iter().map(|bucket| bucket.punches).sum();
        let within = |tenths: u64| {
            let mut so_far = 0;
            let bucket = self.buckets.iter().find(|bucket| {
                so_far += bucket.punches;
                so_far * 10 >= all * tenths
            });
            bucket.and_then(|bucket| bucket.at_most_s)
        };
        (self.median_at_most_s, self.p90_at_most_s) = (within(5), within(9));
    }

    /// Every bucket there can be, the soonest first, with how many punches fell into it.
    pub fn all_buckets(&self) -> impl Iterator<Item = DelayBucket> {
        let bounds = DELAYS.iter().map(|(at_most_s, _)| Some(*at_most_s)).chain([None]);
        bounds.map(|at_most_s| {
            let held = self.buckets.iter().find(|bucket| bucket.at_most_s == at_most_s);
            DelayBucket { at_most_s, punches: held.map_or(0, |bucket| bucket.punches) }
        })
    }
}

impl DisputeFigures {
    fn of(&mut self, cause: &str, change: impl FnOnce(&mut CauseFigures)) {
        // A cause that a newer program knows is in the sums alone.
        let Ok(cause) = cause.parse::<DisputeCause>() else { return };
        match self.causes.iter_mut().find(|held| held.cause == cause) {
            Some(held) => change(held),
            None => {
                let mut new = CauseFigures::none(cause);
                change(&mut new);
                self.causes.push(new);
                self.causes.sort_by_key(|held| held.cause.as_str());
            }
        }
    }

    fn take(&mut self, waits: &Waits) {
        let (median_hours, p90_hours) = (Some(waits.median_hours), Some(waits.p90_hours));
        match &waits.cause {
            None => (self.median_hours, self.p90_hours) = (median_hours, p90_hours),
            Some(cause) => self.of(cause, |of_it| {
                (of_it.median_hours, of_it.p90_hours) = (median_hours, p90_hours);
            }),
        }
    }
}

impl CauseFigures {
    const fn none(cause: DisputeCause) -> Self {
        let (median_hours, p90_hours) = (None, None);
        Self { cause, opened: 0, resolved: 0, reopened: 0, median_hours, p90_hours }
    }

    const fn is_something(&self) -> bool {
        self.opened + self.resolved + self.reopened > 0
    }
}

/// A figure of one site and week, as the CSV has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// By ISO 8601, like `2026-W47`.
    pub week: String,
    /// Its Monday.
    pub from: Day,
    pub site: SiteId,
    pub figure: String,
    pub code: String,
    pub detail: String,
    pub value: f64,
}

/// Every figure of these weeks by site and week, in their order; none if they are more than `max`.
///
/// # Errors
/// When the database is out of reach.
pub async fn rows(
    pool: &Pool,
    site: Option<SiteId>,
    weeks: Weeks,
    max: u32,
) -> Result<Option<Vec<Row>>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(
        "select week, site, figure, code, detail, count::double precision as value \
         from read.figures",
    );
    weeks.push(&mut query, site);
    query.push(format!(
        " union all select week, site, waited.figure, cause, '', waited.hours from ( \
         select week, site, cause, {PERCENTILES} from read.figure_waits"
    ));
    weeks.push(&mut query, site);
    query.push(" group by week, site, cause) waits cross join lateral (values (");
    query.push_bind(counted::HOURS_MEDIAN).push(", median_hours), (");
    query.push_bind(counted::HOURS_P90).push(", p90_hours)) waited (figure, hours)");
    query.push(" order by week, site, figure, code, detail limit ");
    query.push_bind(i64::from(max) + 1);
    let found: Vec<(SqlDate, Uuid, String, String, String, f64)> =
        query.build_query_as().fetch_all(pool).await?;
    if found.len() > max as usize {
        return Ok(None);
    }
    let row = |(week, site, figure, code, detail, value): (SqlDate, _, _, _, _, _)| {
        let (from, iso) = (week.to_jiff(), week.to_jiff().iso_week_date());
        let week = format!("{}-W{:02}", iso.year(), iso.week());
        Row { week, from: from.into(), site: SiteId(site), figure, code, detail, value }
    };
    Ok(Some(found.into_iter().map(row).collect()))
}

/// The rows as CSV (RFC 4180) under a heading.
///
/// # Errors
/// When they can't be written, which they have no reason for.
pub fn csv(rows: &[Row]) -> Result<Vec<u8>, std::io::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["week", "from", "site", "figure", "code", "detail", "value"])?;
    for Row { week, from, site, figure, code, detail, value } in rows {
        // Counts are written without a point.
        let (from, site, value) = (from.to_string(), site.to_string(), value.to_string());
        writer.write_record([week, &from, &site, figure, code, detail, &value])?;
    }
    writer.into_inner().map_err(csv::IntoInnerError::into_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Day {
        text.parse().unwrap()
    }

    #[test]
    fn weeks_are_whole_and_bounded() {
        let newest = day("2026-11-26");
        let weeks = |from: Option<&str>, to: Option<&str>| {
            let weeks = Weeks::of(from.map(day), to.map(day), newest)?;
            Ok::<_, WrongWeeks>((weeks.first.to_string(), weeks.count()))
        };
        assert_eq!(weeks(None, None), Ok(("2026-09-07".to_owned(), 12)));
        assert_eq!(weeks(Some("2026-11-29"), None), Ok(("2026-11-23".to_owned(), 1)));
        assert_eq!(weeks(Some("2030-01-01"), None), Ok(("2029-12-31".to_owned(), 1)));
        assert_eq!(weeks(Some("2026-11-22"), None), Ok(("2026-11-16".to_owned(), 2)));
        assert_eq!(weeks(None, Some("2026-01-01")).map(|(_, count)| count), Ok(12));
        assert_eq!(weeks(Some("2024-12-02"), None).map(|(_, count)| count), Ok(104));
        assert_eq!(weeks(Some("2024-12-01"), None), Err(WrongWeeks::TooMany));
        assert_eq!(weeks(Some("0000-01-01"), Some("9999-12-31")), Err(WrongWeeks::TooMany));
        assert_eq!(weeks(Some("2026-11-23"), Some("2026-11-22")), Err(WrongWeeks::Backwards));
        assert!(weeks(Some("9999-12-31"), Some("9999-12-31")).is_ok());
    }

    #[test]
    fn quantiles_are_read_off_the_buckets() {
        let mut delay = SyncDelay::default();
        delay.reckon();
        assert_eq!((delay.median_at_most_s, delay.p90_at_most_s), (None, None));
        for (at_most_s, punches) in [(None, 1), (Some(5), 4), (Some(1), 5)] {
            delay.add(at_most_s, punches);
        }
        delay.reckon();
        assert_eq!((delay.median_at_most_s, delay.p90_at_most_s), (Some(1), Some(5)));
        delay.add(None, 8);
        delay.reckon();
        assert_eq!((delay.median_at_most_s, delay.p90_at_most_s), (Some(5), None));
        assert_eq!(delay.all_buckets().map(|bucket| bucket.punches).sum::<u64>(), 18);
    }
}
