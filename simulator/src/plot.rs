//! A report as a picture: what waits, what arrives, what is refused, and how long calls take.
//!
//! One column, drawn for the width of a phone: shrunk to 390 pixels its texts are still of some
//! twelve.

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    element::EmptyElement,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    meter::Second,
    percentiles::Percentiles,
    report::{Outcome, Report, grouped},
};

const WIDTH: u32 = 640;
/// A panel with curves, and the last one, with durations.
const CURVES: u32 = 322;
const DURATIONS: u32 = 482;
/// Between a panel's top and what is drawn in it: its title, and a line that says which curve is
/// which.
const TITLE: u32 = 50;
const LEGEND: u32 = 34;
/// Free on both sides.
const MARGIN: i32 = 16;
/// Room on the left of curves for numbers.
const LABELS: u32 = 66;
/// Characters that fit a line, of large text and of small.
const LARGE_CHARS: usize = 43;
const SMALL_CHARS: usize = 58;
/// The most points of a curve; longer runs are drawn by means over several seconds.
const POINTS_MAX: usize = 200;

const LARGE: f64 = 33.0;
const MEDIUM: f64 = 28.0;
const SMALL: f64 = 24.0;

const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
const FAINT: RGBColor = RGBColor(0xe3, 0xe7, 0xec);
const GREY: RGBColor = RGBColor(0x5c, 0x67, 0x74);
const BLUE: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const GREEN: RGBColor = RGBColor(0x2a, 0x8c, 0x5c);
const RED: RGBColor = RGBColor(0xc6, 0x3d, 0x33);
const AMBER: RGBColor = RGBColor(0xd6, 0x8a, 0x12);
const VIOLET: RGBColor = RGBColor(0x7a, 0x4f, 0xb0);

/// A curve's name, colour and values.
type Curve = (&'static str, RGBColor, fn(&Second) -> f64);

const PANELS: [(&str, &[Curve]); 3] = [
    (
        "Outstanding punches after the gate opened",
        &[("outstanding", BLUE, |s| s.outstanding as f64)],
    ),
    ("Punches acknowledged per second", &[("acknowledged", GREEN, |s| s.acknowledged as f64)]),
    (
        "Refused calls and retries per second",
        &[
            ("503 busy", RED, |s| s.busy_503 as f64),
            ("429", AMBER, |s| s.busy_429 as f64),
            ("no answer", VIOLET, |s| (s.unanswered + s.refused) as f64),
            ("retries", GREY, |s| s.retries as f64),
        ],
    ),
];

/// Why no picture could be made.
#[derive(Debug, thiserror::Error)]
#[error("the plot can't be drawn: {0}")]
pub struct PlotError(String);

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), PlotError>;

fn wrong(error: impl std::fmt::Display) -> PlotError {
    PlotError(error.to_string())
}

/// Draws `report` as an SVG document.
///
/// # Errors
/// When the backend refuses, which it has no reason to.
pub fn plot(report: &Report) -> Result<String, PlotError> {
    let mut svg = String::new();
    {
        let lines = heading(report);
        let line_height = |size: f64| (size * 1.2) as u32;
        let head = 28 + lines.iter().map(|(_, size, _)| line_height(*size)).sum::<u32>();
        let height = head + 3 * CURVES + DURATIONS;
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(wrong)?;
        let mut at = (MARGIN, 14);
        for (said, size, color) in lines {
            write(&root, &said, size, color, at)?;
            at.1 += line_height(size) as i32;
        }
        let slots = Slots::of(&report.seconds);
        let (_, mut rest) = root.split_vertically(head);
        for (title, lines) in PANELS {
            let (panel, below) = rest.split_vertically(CURVES);
            curves(&panel, title, &slots, lines)?;
            rest = below;
        }
        latencies(&rest, report)?;
        root.present().map_err(wrong)?;
    }
    Ok(svg)
}

fn text(size: f64, color: RGBColor, h: HPos, v: VPos) -> TextStyle<'static> {
    let mut style = TextStyle::from(("sans-serif", size).into_font()).pos(Pos::new(h, v));
    style.color = color.to_backend_color();
    style
}

fn write(area: &Panel<'_>, said: &str, size: f64, color: RGBColor, at: (i32, i32)) -> Drawn {
    area.draw_text(said, &text(size, color, HPos::Left, VPos::Top), at).map_err(wrong)
}

/// Lines with their size and colour.
fn heading(report: &Report) -> Vec<(String, f64, RGBColor)> {
    let Outcome { complete, unacknowledged, acknowledged, .. } = report.outcome;
    let (verdict, color) = match complete {
        true => ("complete".to_owned(), GREEN),
        false if unacknowledged > 0 => {
            (format!("{} punches still wait", grouped(unacknowledged)), RED)
        }
        false => ("files and server disagree".to_owned(), RED),
    };
    let title = [format!("{} devices come back at once", grouped(report.devices as u64)), verdict];
    let rate = &report.rate;
    let mut facts = vec![
        format!("{} punches in {:.0} s", grouped(acknowledged), rate.last_acknowledged_s),
        format!("{}/s mean", grouped(rate.mean_per_s as u64)),
        format!("{}/s in the best 5 s", grouped(rate.peak_per_s as u64)),
        format!("at most {} calls at once", grouped(report.sent.in_flight_max)),
        format!("seed {}", report.seed),
    ];
    let modes = &report.misbehaviour.modes;
    if !modes.is_empty() {
        facts.push(format!("{} misbehave", grouped(report.misbehaviour.devices as u64)));
        facts.extend(modes.iter().map(ToString::to_string));
    }
    let title = folded(&title, ": ", LARGE_CHARS).into_iter();
    let facts = folded(&facts, " · ", SMALL_CHARS).into_iter();
    title.map(|said| (said, LARGE, color)).chain(facts.map(|said| (said, SMALL, GREY))).collect()
}

/// Parts put together to lines of at most `chars_max`, where one part alone isn't longer.
fn folded(parts: &[String], between: &str, chars_max: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        let joined = lines.last().map(|line| format!("{line}{between}{part}"));
        match joined.filter(|joined| joined.chars().count() <= chars_max).zip(lines.last_mut()) {
            Some((joined, line)) => *line = joined,
            None => lines.push(part.clone()),
        }
    }
    lines
}

/// Rows put together so that a curve has at most [`POINTS_MAX`] points.
struct Slots<'a> {
    rows: &'a [Second],
    seconds: usize,
}

impl<'a> Slots<'a> {
    fn of(rows: &'a [Second]) -> Self {
        Self { rows, seconds: rows.len().div_ceil(POINTS_MAX).max(1) }
    }

    /// Points of a curve: the middle of each slot, and the mean over it.
    fn points(&self, value: fn(&Second) -> f64) -> Vec<(f64, f64)> {
        self.rows
            .chunks(self.seconds)
            .enumerate()
            .map(|(slot, rows)| {
                let at_s = (slot * self.seconds) as f64 + rows.len() as f64 / 2.0;
                (at_s, rows.iter().map(value).sum::<f64>() / rows.len() as f64)
            })
            .collect()
    }

    fn end_s(&self) -> f64 {
        self.rows.len().max(1) as f64
    }
}

fn curves(area: &Panel<'_>, title: &str, slots: &Slots<'_>, curves: &[Curve]) -> Drawn {
    write(area, title, MEDIUM, INK, (MARGIN, 8))?;
    let mut above = TITLE;
    if curves.len() > 1 {
        above += LEGEND;
        legend(area, curves)?;
    }
    let drawn: Vec<_> = curves.iter().map(|(.., value)| slots.points(*value)).collect();
    let top = drawn.iter().flatten().map(|(_, value)| *value).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin_left(MARGIN)
        .margin_right(2 * MARGIN)
        .margin_top(above)
        .x_label_area_size(48)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(0.0..slots.end_s(), 0.0..rounded_up(top))
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(GREY)
        .label_style(text(SMALL, GREY, HPos::Left, VPos::Top))
        .y_labels(if top <= 0.0 { 1 } else { 4 })
        .y_label_formatter(&|value| short(*value))
        .x_labels(5)
        .x_label_formatter(&|value| format!("{value:.0} s"))
        .draw()
        .map_err(wrong)?;
    for ((_, color, _), points) in curves.iter().zip(drawn) {
        if curves.len() == 1 {
            let filled = AreaSeries::new(points.iter().copied(), 0.0, color.mix(0.14));
            chart.draw_series(filled).map_err(wrong)?;
        }
        chart.draw_series(LineSeries::new(points, color.stroke_width(3))).map_err(wrong)?;
    }
    if curves.len() > 1 && top <= 0.0 {
        let at = (MARGIN + LABELS as i32 + 20, above as i32 + 60);
        write(area, "none: every call was answered", SMALL, GREEN, at)?;
    }
    Ok(())
}

/// Which curve is which: a line above the curves, where none of them can be.
fn legend(area: &Panel<'_>, curves: &[Curve]) -> Drawn {
    let room = (WIDTH as i32 - 2 * MARGIN) / curves.len() as i32;
    let y = TITLE as i32 + 12;
    for (x, (name, color, _)) in (MARGIN..).step_by(room as usize).zip(curves) {
        let mark = PathElement::new([(x, y), (x + 22, y)], color.stroke_width(5));
        area.draw(&mark).map_err(wrong)?;
        write(area, name, SMALL, INK, (x + 30, y - 10))?;
    }
    Ok(())
}

/// A row a class on a logarithmic axis: a bar from the median to the slowest, marks on it.
fn latencies(area: &Panel<'_>, report: &Report) -> Drawn {
    write(area, "How long calls took: p50, p90, p99, slowest", MEDIUM, INK, (MARGIN, 8))?;
    let latency = &report.latency;
    let rows = [
        ("batches", latency.batches, GREEN),
        ("heartbeats", latency.heartbeats, BLUE),
        ("manifest", latency.manifest, VIOLET),
        ("refused as busy", latency.sheds, RED),
    ];
    let known = || rows.iter().filter(|(_, p, _)| p.count > 0);
    let least = known().map(|(_, p, _)| p.p50_ms).fold(f64::INFINITY, f64::min);
    let most = known().map(|(_, p, _)| p.max_ms).fold(1.0, f64::max);
    let from = if least.is_finite() { decade_below(least) } else { 0.1 };
    let until = decade_above(most).max(from * 10.0);
    let mut chart = ChartBuilder::on(area)
        .margin_left(3 * MARGIN)
        .margin_right(3 * MARGIN)
        .margin_top(TITLE)
        .x_label_area_size(48)
        .build_cartesian_2d((from..until).log_scale(), 0.0..rows.len() as f64)
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(GREY)
        .label_style(text(SMALL, GREY, HPos::Left, VPos::Top))
        .x_labels(5)
        .x_label_formatter(&|ms| shown_ms(*ms))
        .draw()
        .map_err(wrong)?;
    for ((name, p, color), y) in rows.iter().rev().zip(0..) {
        let at = (from, f64::from(y) + 1.0);
        let shown = match p.count {
            0 => String::new(),
            _ => format!(
                "p50 {}, p99 {}, slowest {}",
                shown_ms(p.p50_ms),
                shown_ms(p.p99_ms),
                shown_ms(p.max_ms)
            ),
        };
        let style = |color| text(SMALL, color, HPos::Left, VPos::Top);
        let labels = EmptyElement::at(at)
            + Text::new(format!("{name}, {} calls", grouped(p.count)), (2, 8), style(INK))
            + Text::new(shown, (2, 34), style(GREY));
        chart.plotting_area().draw(&labels).map_err(wrong)?;
        if p.count > 0 {
            marks(chart.plotting_area(), p, *color, f64::from(y) + 0.2)?;
        }
    }
    Ok(())
}

type Logarithmic<'a> = DrawingArea<
    SVGBackend<'a>,
    Cartesian2d<plotters::coord::combinators::LogCoord<f64>, RangedCoordf64>,
>;

fn marks(area: &Logarithmic<'_>, p: &Percentiles, color: RGBColor, y: f64) -> Drawn {
    let line = PathElement::new([(p.p50_ms, y), (p.max_ms, y)], color.mix(0.35).stroke_width(9));
    area.draw(&line).map_err(wrong)?;
    for (ms, size, filled) in
        [(p.p50_ms, 9, true), (p.p90_ms, 7, true), (p.p99_ms, 9, true), (p.max_ms, 6, false)]
    {
        let style = if filled { color.filled() } else { color.stroke_width(3) };
        area.draw(&Circle::new((ms, y), size, style)).map_err(wrong)?;
    }
    Ok(())
}

fn decade_below(ms: f64) -> f64 {
    10f64.powf(ms.max(0.01).log10().floor())
}

fn decade_above(ms: f64) -> f64 {
    10f64.powf(ms.max(0.01).log10().ceil())
}

/// The end of an axis: a round number not below `top`.
fn rounded_up(top: f64) -> f64 {
    if top <= 0.0 {
        return 1.0;
    }
    let decade = decade_below(top);
    let steps = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * decade).find(|end| *end >= top).unwrap_or(top)
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", tenths(v / 1e6)),
        v if v >= 1_000.0 => format!("{}k", tenths(v / 1e3)),
        v => tenths(v),
    }
}

/// With a decimal where it says something.
fn tenths(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn shown_ms(ms: f64) -> String {
    match ms {
        ms if ms >= 10_000.0 => format!("{:.0} s", ms / 1_000.0),
        ms if ms >= 1_000.0 => format!("{} s", tenths(ms / 1_000.0)),
        ms if ms >= 10.0 => format!("{ms:.0} ms"),
        ms => format!("{} ms", tenths(ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (top, end) in [(0.0, 1.0), (1.0, 1.0), (7.2, 8.0), (1_210.0, 1_500.0), (99.0, 100.0)] {
            assert!((rounded_up(top) - end).abs() < 1e-9, "{top} gave {}", rounded_up(top));
        }
    }

    #[test]
    fn long_runs_are_drawn_by_means() {
        let rows: Vec<Second> =
            (0..1_000).map(|s| Second { acknowledged: s % 5, ..Second::default() }).collect();
        let points = Slots::of(&rows).points(|row| row.acknowledged as f64);
        assert_eq!(points.len(), 200);
        assert_eq!(points[0], (2.5, 2.0));
        assert!(points.iter().all(|(_, value)| *value == 2.0));
        assert_eq!(Slots::of(&rows[..3]).points(|row| row.acknowledged as f64).len(), 3);
    }

    #[test]
    fn facts_are_folded_into_lines_and_none_is_left_out() {
        let facts = ["one", "two", "a long one", "three"].map(str::to_owned);
        assert_eq!(folded(&facts, ", ", 9), ["one, two", "a long one", "three"]);
    }

    #[test]
    fn durations_are_told_in_a_fitting_unit() {
        assert_eq!(
            [0.4, 12.3, 1_234.0, 30_000.0].map(shown_ms),
            ["0.4 ms", "12 ms", "1.2 s", "30 s"]
        );
    }
}
