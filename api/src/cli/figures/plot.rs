//! Figures as a picture: disputes by cause, how long they waited, what was referred and how it was
//! ruled, how late punches came.
//!
//! One column that scales to the width it is given: at 390 pixels its texts are still of some
//! eleven. Colours are Okabe and Ito's, which people who are colour-blind tell apart.

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    element::EmptyElement,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use punchtrail_projections::figures::{Figures, FiguresView, Week};
use punchtrail_protocol::dispute::DisputeCause;

const WIDTH: u32 = 640;
/// How wide it is shown at most, in pixels.
const SHOWN_MAX: u32 = 800;
const HEADING: u32 = 92;
/// A panel over weeks, its legend beside; and of that, what its title and each legend line take.
const CHART: u32 = 230;
const TITLE: u32 = 46;
const LEGEND_LINE: u32 = 30;
const DELAY_LINE: u32 = 30;
const MARGIN: i32 = 16;
const LABELS: u32 = 66;
const BELOW: u32 = 40;
/// Legend entries on a line.
const LEGEND_COLUMNS: usize = 2;
/// Weeks that are named below a panel.
const NAMED_WEEKS_MAX: usize = 5;

const LARGE: f64 = 32.0;
const MEDIUM: f64 = 26.0;
const SMALL: f64 = 21.0;
/// Characters of a site's name that fit the heading.
const NAME_CHARS_MAX: usize = 34;

const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
const FAINT: RGBColor = RGBColor(0xe3, 0xe7, 0xec);
const GREY: RGBColor = RGBColor(0x5c, 0x67, 0x74);

const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const SKY: RGBColor = RGBColor(0x56, 0xb4, 0xe9);
const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);
const YELLOW: RGBColor = RGBColor(0xf0, 0xe4, 0x42);
const ORANGE: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
const RED: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const PINK: RGBColor = RGBColor(0xcc, 0x79, 0xa7);
const DARK: RGBColor = RGBColor(0x3a, 0x3a, 0x3a);

/// How a referred punch can be ruled.
const RULINGS: [(&str, RGBColor); 6] = [
    ("accepted", GREEN),
    ("amended", SKY),
    ("rejected", RED),
    ("voided", PINK),
    ("verified", YELLOW),
    ("withdrawn", ORANGE),
];

/// Why no picture could be made.
#[derive(Debug, thiserror::Error)]
#[error("the figures can't be drawn: {0}")]
pub(super) struct PlotError(String);

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), PlotError>;
type Flat = Cartesian2d<RangedCoordf64, RangedCoordf64>;

fn wrong(error: impl std::fmt::Display) -> PlotError {
    PlotError(error.to_string())
}

/// A kind of bar or line: its name, its colour, and its value in each week.
struct Series {
    name: String,
    color: RGBColor,
    values: Vec<f64>,
}

impl Series {
    fn of(name: &str, color: RGBColor, weeks: &[Week], value: impl Fn(&Figures) -> f64) -> Self {
        let values: Vec<f64> = weeks.iter().map(|week| value(&week.figures)).collect();
        Self { name: name.to_owned(), color, values }
    }

    /// With how many there were in all, if there was one.
    fn counted(self) -> Option<Self> {
        let all: f64 = self.values.iter().sum();
        let name = format!("{} ({all})", self.name);
        (all > 0.0).then_some(Self { name, ..self })
    }
}

/// Draws figures as an SVG document.
///
/// # Errors
/// When the backend refuses, which it has no reason to.
pub(super) fn plot(view: &FiguresView, named: &str) -> Result<String, PlotError> {
    let (causes, waits) = (causes(view), waits(view));
    let (rulings, referred) = (rulings(view), referred(view));
    let delays = delays(view);
    let height_of = |entries: usize| {
        TITLE + entries.div_ceil(LEGEND_COLUMNS) as u32 * LEGEND_LINE + CHART + BELOW
    };
    let heights = [
        height_of(causes.len()),
        height_of(waits.len()),
        height_of(rulings.len() + 1),
        TITLE + DELAY_LINE * delays.len() as u32 + 2 * LEGEND_LINE,
    ];
    let height = HEADING + heights.iter().sum::<u32>();
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(wrong)?;
        let [first, second, third, _] = heights;
        let (head, rest) = root.split_vertically(HEADING);
        heading(&head, view, named)?;
        let (panel, rest) = rest.split_vertically(first);
        bars(&panel, view, "Disputes opened a week, by cause", &causes, None)?;
        let (panel, rest) = rest.split_vertically(second);
        lines(&panel, view, "Hours until they were settled", &waits)?;
        let (panel, rest) = rest.split_vertically(third);
        bars(&panel, view, "Referred punches, and their rulings", &rulings, Some(&referred))?;
        histogram(&rest, &delays)?;
        root.present().map_err(wrong)?;
    }
    // It takes the width that it is given, up to some.
    let fixed = format!("<svg width=\"{WIDTH}\" height=\"{height}\" ");
    let fluid = format!("<svg width=\"100%\" style=\"max-width:{SHOWN_MAX}px\" ");
    Ok(svg.replacen(&fixed, &fluid, 1))
}

fn causes(view: &FiguresView) -> Vec<Series> {
    let series = view.causes.iter().map(|cause| {
        let (cause, of) = (cause.figures.cause, |figures: &Figures, cause| {
            let of_it = figures.disputes.causes.iter().find(|of_it| of_it.cause == cause);
            of_it.map_or(0.0, |of_it| of_it.opened as f64)
        });
        let (name, color) = shown(cause);
        Series::of(name, color, &view.weeks, |figures| of(figures, cause))
    });
    series.filter_map(Series::counted).collect()
}

const fn shown(cause: DisputeCause) -> (&'static str, RGBColor) {
    match cause {
        DisputeCause::MissingPunch => ("missing punch", BLUE),
        DisputeCause::WrongTime => ("wrong time", ORANGE),
        DisputeCause::WrongKind => ("wrong kind", GREEN),
        DisputeCause::WrongPerson => ("wrong person", PINK),
        DisputeCause::NotMine => ("not mine", SKY),
        DisputeCause::Rejected => ("rejected", RED),
        DisputeCause::Other => ("other", DARK),
    }
}

/// NaN in a week in which none was settled.
fn waits(view: &FiguresView) -> Vec<Series> {
    let of = |hours: Option<f64>| hours.unwrap_or(f64::NAN);
    vec![
        Series::of("half within", BLUE, &view.weeks, |f| of(f.disputes.median_hours)),
        Series::of("nine in ten within", RED, &view.weeks, |f| of(f.disputes.p90_hours)),
    ]
}

fn rulings(view: &FiguresView) -> Vec<Series> {
    let series = RULINGS.iter().map(|(how, color)| {
        let of = |figures: &Figures| figures.referrals.ruled.get(*how).copied().unwrap_or(0);
        Series::of(how, *color, &view.weeks, |figures| of(figures) as f64)
    });
    series.filter_map(Series::counted).collect()
}

fn referred(view: &FiguresView) -> Series {
    let of = |figures: &Figures| figures.referrals.referred as f64;
    let all = view.total.referrals.referred;
    Series::of(&format!("referred: black line ({all})"), INK, &view.weeks, of)
}

/// Names of buckets, and how many punches fell into them.
fn delays(view: &FiguresView) -> Vec<(String, u64)> {
    let named = view.total.sync_delay.all_buckets().map(|bucket| {
        let name = match bucket.at_most_s {
            Some(at_most_s) => format!("up to {}", duration(at_most_s)),
            None => "later".to_owned(),
        };
        (name, bucket.punches)
    });
    named.collect()
}

/// Seconds in the largest unit of which they are whole ones.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        s if s >= 86_400 && s % 86_400 == 0 => format!("{} d", s / 86_400),
        s if s >= 3_600 && s % 3_600 == 0 => format!("{} h", s / 3_600),
        s if s >= 60 && s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

fn text(size: f64, color: RGBColor, h: HPos, v: VPos) -> TextStyle<'static> {
    let mut style = TextStyle::from(("sans-serif", size).into_font()).pos(Pos::new(h, v));
    style.color = color.to_backend_color();
    style
}

fn write(area: &Panel<'_>, said: &str, size: f64, color: RGBColor, at: (i32, i32)) -> Drawn {
    area.draw_text(said, &text(size, color, HPos::Left, VPos::Top), at).map_err(wrong)
}

fn heading(area: &Panel<'_>, view: &FiguresView, named: &str) -> Drawn {
    let mut name: String = named.chars().take(NAME_CHARS_MAX).collect();
    if name.len() < named.len() {
        name.push('…');
    }
    write(area, &name, LARGE, INK, (MARGIN, 14))?;
    let weeks = format!("{} to {}, {} weeks", view.from, view.to, view.weeks.len());
    write(area, &weeks, SMALL, GREY, (MARGIN, 54))
}

/// A title, a legend, and what is below them.
fn begin<'a>(area: &Panel<'a>, title: &str, legend: &[(&str, RGBColor)]) -> Result<u32, PlotError> {
    write(area, title, MEDIUM, INK, (MARGIN, 8))?;
    let room = (WIDTH as i32 - 2 * MARGIN) / LEGEND_COLUMNS as i32;
    for (place, (name, color)) in legend.iter().enumerate() {
        let x = MARGIN + room * (place % LEGEND_COLUMNS) as i32;
        let y = (TITLE + LEGEND_LINE * (place / LEGEND_COLUMNS) as u32) as i32;
        let mark = Rectangle::new([(x, y + 3), (x + 18, y + 19)], color.filled());
        area.draw(&mark).map_err(wrong)?;
        write(area, name, SMALL, INK, (x + 26, y))?;
    }
    Ok(TITLE + LEGEND_LINE * legend.len().div_ceil(LEGEND_COLUMNS) as u32)
}

/// Axes over the weeks, up to `top`.
fn axes<'a>(
    area: &Panel<'a>,
    view: &FiguresView,
    above: u32,
    top: f64,
) -> Result<ChartContext<'a, SVGBackend<'a>, Flat>, PlotError> {
    let count = view.weeks.len();
    let mut chart = ChartBuilder::on(area)
        .margin_left(MARGIN)
        .margin_right(2 * MARGIN)
        .margin_top(above + 8)
        .x_label_area_size(BELOW)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(0.0..count as f64, 0.0..rounded_up(top))
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(GREY)
        .label_style(text(SMALL, GREY, HPos::Left, VPos::Top))
        .x_labels(0)
        .y_labels(if top <= 1.0 { 2 } else { 5 })
        .y_label_formatter(&|value| short(*value))
        .draw()
        .map_err(wrong)?;
    let every = count.div_ceil(NAMED_WEEKS_MAX).max(1);
    for (place, week) in view.weeks.iter().enumerate().step_by(every) {
        // Day and month of its Monday.
        let said = week.from.date().strftime("%-d %b").to_string();
        let at = EmptyElement::at((place as f64 + 0.5, 0.0))
            + Text::new(said, (0, 8), text(SMALL, GREY, HPos::Center, VPos::Top));
        chart.plotting_area().draw(&at).map_err(wrong)?;
    }
    Ok(chart)
}

/// Stacked bars, and perhaps a mark over each week.
fn bars(
    area: &Panel<'_>,
    view: &FiguresView,
    title: &str,
    stack: &[Series],
    marked: Option<&Series>,
) -> Drawn {
    let legend: Vec<_> =
        marked.into_iter().chain(stack).map(|s| (s.name.as_str(), s.color)).collect();
    let above = begin(area, title, &legend)?;
    let mut sums = vec![0.0; view.weeks.len()];
    for series in stack {
        sums.iter_mut().zip(&series.values).for_each(|(sum, value)| *sum += value);
    }
    let marks = marked.iter().flat_map(|series| &series.values);
    let top = sums.iter().chain(marks).copied().fold(0.0, f64::max);
    let chart = axes(area, view, above, top)?;
    let plane = chart.plotting_area();
    for place in 0..view.weeks.len() {
        let (left, right) = (place as f64 + 0.15, place as f64 + 0.85);
        let mut below = 0.0;
        for series in stack {
            let value = series.values.get(place).copied().unwrap_or_default();
            let bar = [(left, below), (right, below + value)];
            plane.draw(&Rectangle::new(bar, series.color.filled())).map_err(wrong)?;
            below += value;
        }
        if let Some((series, value)) = marked.and_then(|s| Some((s, *s.values.get(place)?)))
            && value > 0.0
        {
            let ends = [(place as f64 + 0.04, value), (place as f64 + 0.96, value)];
            let mark = PathElement::new(ends, series.color.stroke_width(4));
            plane.draw(&mark).map_err(wrong)?;
        }
    }
    none_said(area, above, top, "none in these weeks")
}

/// Lines over the weeks that have a value, with a point at each.
fn lines(area: &Panel<'_>, view: &FiguresView, title: &str, lines: &[Series]) -> Drawn {
    let legend: Vec<_> = lines.iter().map(|series| (series.name.as_str(), series.color)).collect();
    let above = begin(area, title, &legend)?;
    let values = lines.iter().flat_map(|series| &series.values);
    let top = values.copied().filter(|value| !value.is_nan()).fold(0.0, f64::max);
    let mut chart = axes(area, view, above, top)?;
    for series in lines {
        let points = series.values.iter().enumerate();
        let points: Vec<(f64, f64)> = points
            .filter(|(_, value)| !value.is_nan())
            .map(|(place, value)| (place as f64 + 0.5, *value))
            .collect();
        let style = series.color.stroke_width(3);
        chart.draw_series(LineSeries::new(points.iter().copied(), style)).map_err(wrong)?;
        let dots = points.into_iter().map(|at| Circle::new(at, 5, series.color.filled()));
        chart.draw_series(dots).map_err(wrong)?;
    }
    none_said(area, above, top, "none was settled in these weeks")
}

fn none_said(area: &Panel<'_>, above: u32, top: f64, said: &str) -> Drawn {
    if top > 0.0 {
        return Ok(());
    }
    write(area, said, SMALL, GREY, (MARGIN + LABELS as i32 + 20, above as i32 + 60))
}

/// A line a bucket: its name, a bar, how many.
fn histogram(area: &Panel<'_>, buckets: &[(String, u64)]) -> Drawn {
    write(area, "How long after the press punches came", MEDIUM, INK, (MARGIN, 8))?;
    let most = buckets.iter().map(|(_, punches)| *punches).max().unwrap_or(0).max(1);
    let (left, room) = (MARGIN + 130, f64::from(WIDTH) - 300.0);
    let all: u64 = buckets.iter().map(|(_, punches)| punches).sum();
    for (place, (name, punches)) in (0..).zip(buckets) {
        let y = TITLE as i32 + place * DELAY_LINE as i32 + 4;
        let style = text(SMALL, GREY, HPos::Right, VPos::Top);
        area.draw_text(name, &style, (left - 12, y)).map_err(wrong)?;
        let right = left + (*punches as f64 / most as f64 * room).ceil() as i32;
        let bar = Rectangle::new([(left, y - 1), (right, y + 19)], BLUE.filled());
        area.draw(&bar).map_err(wrong)?;
        let said = match punches {
            0 => "0".to_owned(),
            n => format!("{} ({})", grouped(*n), percent(*n as f64 / all as f64)),
        };
        write(area, &said, SMALL, INK, (right + 10, y))?;
    }
    Ok(())
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let thousands = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    thousands.collect::<Vec<_>>().join(",")
}

fn percent(part: f64) -> String {
    match part * 100.0 {
        percent if percent < 0.1 => "under 0.1 %".to_owned(),
        percent => format!("{} %", short((percent * 10.0).round() / 10.0)),
    }
}

/// The end of an axis: a round number not below `top`.
fn rounded_up(top: f64) -> f64 {
    if top <= 1.0 {
        return 1.0;
    }
    let decade = 10f64.powf(top.log10().floor());
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * decade).find(|end| *end >= top).unwrap_or(top)
}

fn short(value: f64) -> String {
    let tenths = |number: f64| {
        let text = format!("{number:.1}");
        text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
    };
    match value {
        v if v >= 1e6 => format!("{}M", tenths(v / 1e6)),
        v if v >= 10_000.0 => format!("{}k", tenths(v / 1e3)),
        v => tenths(v),
    }
}

#[cfg(test)]
mod tests {
    use punchtrail_projections::figures::{CauseFigures, CauseSummary, DelayBucket};

    use super::*;

    #[test]
    fn durations_are_told_in_a_fitting_unit() {
        let told = [1, 30, 60, 1_800, 3_600, 43_200, 86_400, 604_800].map(duration);
        assert_eq!(told, ["1 s", "30 s", "1 min", "30 min", "1 h", "12 h", "1 d", "7 d"]);
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (top, end) in [(0.0, 1.0), (1.0, 1.0), (7.2, 8.0), (52.0, 60.0), (99.0, 100.0)] {
            assert!((rounded_up(top) - end).abs() < 1e-9, "{top} gave {}", rounded_up(top));
        }
    }

    fn view(weeks: Vec<Week>, total: Figures, causes: Vec<CauseSummary>) -> FiguresView {
        let (first, last) = (weeks.first().unwrap().from, weeks.last().unwrap().from);
        FiguresView { site: None, from: first, to: last, weeks, total, causes, sites: Vec::new() }
    }

    fn week(place: i64, figures: Figures) -> Week {
        let monday = jiff::civil::date(2026, 9, 7) + jiff::Span::new().days(7 * place);
        Week { week: monday.to_string(), from: monday.into(), figures }
    }

    #[test]
    fn weeks_without_anything_are_drawn() {
        let view = view(vec![week(0, Figures::default())], Figures::default(), Vec::new());
        let svg = plot(&view, "a < b & \"c\"").unwrap();
        assert!(svg.starts_with("<svg width=\"100%\""), "{}", &svg[..80]);
        assert!(svg.contains("none in these weeks") && !svg.contains("a < b"), "{svg}");
    }

    #[test]
    fn every_cause_and_ruling_is_named_with_its_number() {
        let causes = <DisputeCause as strum::VariantArray>::VARIANTS;
        let of = |cause: DisputeCause, place: u64| CauseFigures {
            cause,
            opened: (13 - place.min(12)) * (7 - cause as u64) / 3,
            resolved: 0,
            reopened: 0,
            median_hours: None,
            p90_hours: None,
        };
        let mut total = Figures::default();
        let rulings = |place: u64| {
            let ruled = RULINGS
                .iter()
                .zip(0..)
                .map(|((how, _), n)| ((*how).to_owned(), (5 - n) * (4 + place % 4)));
            ruled.collect()
        };
        let weeks = (0..12).map(|place| {
            let mut figures = Figures::default();
            figures.disputes.causes = causes.iter().map(|cause| of(*cause, place)).collect();
            let hours = 30.0 / (place + 1) as f64;
            let settled = place != 5;
            figures.disputes.median_hours = settled.then_some(hours);
            figures.disputes.p90_hours = settled.then_some(hours * 2.5);
            figures.referrals.ruled = rulings(place);
            figures.referrals.referred = 70 + place * 3 % 17;
            total.referrals.referred += figures.referrals.referred;
            week(place as i64, figures)
        });
        let weeks: Vec<Week> = weeks.collect();
        let bounds = total
            .sync_delay
            .all_buckets()
            .zip(0..)
            .map(|(bucket, n)| DelayBucket { punches: 90_000 >> n, ..bucket });
        total.sync_delay.buckets = bounds.collect();
        let summary = |cause: &DisputeCause| CauseSummary { figures: of(*cause, 0), waiting: 1 };
        let view = view(weeks, total, causes.iter().map(summary).collect());
        let svg = plot(&view, "Mill on the hill").unwrap();
        for part in ["missing punch (", "other (", "verified (", "black line (", "up to 30 min"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        assert!(!svg.contains("NaN"), "a week without a wait has no point");
    }
}
