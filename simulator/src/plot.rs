//! A report as a picture: what waits, what arrives, what is refused, and how long calls take.

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    meter::Second,
    misbehaviour::names,
    percentiles::Percentiles,
    report::{Outcome, Report, grouped},
};

const WIDTH: u32 = 1_280;
const HEIGHT: u32 = 860;
const HEAD: u32 = 84;
/// The most points of a curve; longer runs are drawn by means over several seconds.
const POINTS_MAX: usize = 200;
/// Room on the left of a panel for numbers, in pixels.
const LABELS: u32 = 62;

const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
const FAINT: RGBColor = RGBColor(0xe3, 0xe7, 0xec);
const GREY: RGBColor = RGBColor(0x6b, 0x77, 0x85);
const BLUE: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const GREEN: RGBColor = RGBColor(0x2a, 0x8c, 0x5c);
const RED: RGBColor = RGBColor(0xc6, 0x3d, 0x33);
const AMBER: RGBColor = RGBColor(0xd6, 0x8a, 0x12);
const VIOLET: RGBColor = RGBColor(0x7a, 0x4f, 0xb0);

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
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        root.fill(&WHITE).map_err(wrong)?;
        let (head, rest) = root.split_vertically(HEAD);
        heading(&head, report)?;
        let panels = rest.margin(0, 10, 14, 14).split_evenly((2, 2));
        let slots = Slots::of(&report.seconds);
        if let [outstanding, arriving, refused, latency] = panels.as_slice() {
            curves(
                outstanding,
                "Outstanding punches",
                &slots,
                &[("outstanding", BLUE, |s| s.outstanding as f64)],
            )?;
            curves(
                arriving,
                "Punches acknowledged per second",
                &slots,
                &[("punches/s", GREEN, |s| s.acknowledged as f64)],
            )?;
            let troubles: [Curve; 4] = [
                ("503 busy", RED, |s| s.busy_503 as f64),
                ("429", AMBER, |s| s.busy_429 as f64),
                ("no answer", VIOLET, |s| (s.unanswered + s.refused) as f64),
                ("retries", GREY, |s| s.retries as f64),
            ];
            curves(refused, "Refused calls and retries per second", &slots, &troubles)?;
            if slots.rows.iter().all(|s| troubles.iter().all(|(.., value)| value(s) == 0.0)) {
                let (x, y) = (LABELS as i32 + 40, 120);
                let said = text(15, GREEN, HPos::Left, VPos::Top);
                refused.draw_text("none: every call was answered", &said, (x, y)).map_err(wrong)?;
            }
            latencies(latency, report)?;
        }
        root.present().map_err(wrong)?;
    }
    Ok(svg)
}

fn text(size: u32, color: RGBColor, h: HPos, v: VPos) -> TextStyle<'static> {
    let mut style = TextStyle::from(("sans-serif", size).into_font()).pos(Pos::new(h, v));
    style.color = color.to_backend_color();
    style
}

fn heading(area: &Panel<'_>, report: &Report) -> Drawn {
    let Outcome { complete, unacknowledged, acknowledged, .. } = report.outcome;
    let (verdict, color) = match complete {
        true => ("complete".to_owned(), GREEN),
        false if unacknowledged > 0 => {
            (format!("{} punches still wait", grouped(unacknowledged)), RED)
        }
        false => ("files and server disagree".to_owned(), RED),
    };
    let misbehaving = match report.misbehaviour.modes.as_slice() {
        [] => String::new(),
        modes => {
            let devices = grouped(report.misbehaviour.devices as u64);
            format!(" · {devices} misbehave: {}", names(modes))
        }
    };
    let title = format!("{} devices come back at once: {verdict}", grouped(report.devices as u64));
    let below = format!(
        "{} punches in {:.0} s · {}/s mean · {}/s in the best 5 s · at most {} calls at once · seed {}{misbehaving}",
        grouped(acknowledged),
        report.rate.last_acknowledged_s,
        grouped(report.rate.mean_per_s as u64),
        grouped(report.rate.peak_per_s as u64),
        grouped(report.sent.in_flight_max),
        report.seed,
    );
    area.draw_text(&title, &text(24, color, HPos::Left, VPos::Top), (20, 18)).map_err(wrong)?;
    area.draw_text(&below, &text(14, GREY, HPos::Left, VPos::Top), (20, 52)).map_err(wrong)
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

type Curve = (&'static str, RGBColor, fn(&Second) -> f64);

fn curves(area: &Panel<'_>, title: &str, slots: &Slots<'_>, curves: &[Curve]) -> Drawn {
    let drawn: Vec<_> = curves.iter().map(|(.., value)| slots.points(*value)).collect();
    let top = drawn.iter().flatten().map(|(_, value)| *value).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(title, text(16, INK, HPos::Left, VPos::Top))
        .x_label_area_size(36)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(0.0..slots.end_s(), 0.0..rounded_up(top))
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(GREY)
        .label_style(text(12, GREY, HPos::Left, VPos::Top))
        .y_labels(if top <= 0.0 { 1 } else { 5 })
        .y_label_formatter(&|value| short(*value))
        .x_desc("seconds after the gate opened")
        .axis_desc_style(text(12, GREY, HPos::Left, VPos::Top))
        .x_labels(8)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .draw()
        .map_err(wrong)?;
    for ((name, color, _), points) in curves.iter().zip(drawn) {
        let color = *color;
        if curves.len() == 1 {
            let filled = AreaSeries::new(points.iter().copied(), 0.0, color.mix(0.14));
            chart.draw_series(filled).map_err(wrong)?;
        }
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))
            .map_err(wrong)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(3)));
    }
    if curves.len() > 1 {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(text(12, INK, HPos::Left, VPos::Top))
            .background_style(WHITE.mix(0.85))
            .draw()
            .map_err(wrong)?;
    }
    Ok(())
}

/// A row a class on a logarithmic axis: a bar from the median to the slowest, marks on it.
fn latencies(area: &Panel<'_>, report: &Report) -> Drawn {
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
        .margin(12)
        .caption(
            "How long calls took: p50, p90, p99, slowest",
            text(16, INK, HPos::Left, VPos::Top),
        )
        .x_label_area_size(36)
        .y_label_area_size(LABELS)
        .build_cartesian_2d((from..until).log_scale(), 0.0..rows.len() as f64)
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(GREY)
        .label_style(text(12, GREY, HPos::Left, VPos::Top))
        .axis_desc_style(text(12, GREY, HPos::Left, VPos::Top))
        .x_labels(8)
        .x_label_formatter(&|ms| shown_ms(*ms))
        .x_desc("time a call took, logarithmic")
        .draw()
        .map_err(wrong)?;
    for (row, (name, p, color)) in rows.iter().enumerate() {
        let y = rows.len() as f64 - row as f64 - 0.62;
        let said = match p.count {
            0 => format!("{name}: none"),
            calls => format!(
                "{name}: {} calls, p50 {}, p99 {}, slowest {}",
                grouped(calls),
                shown_ms(p.p50_ms),
                shown_ms(p.p99_ms),
                shown_ms(p.max_ms)
            ),
        };
        let style = text(13, INK, HPos::Left, VPos::Bottom);
        let label = Text::new(said, (from, y + 0.16), style);
        chart.plotting_area().draw(&label).map_err(wrong)?;
        if p.count > 0 {
            marks(chart.plotting_area(), p, *color, y)?;
        }
    }
    Ok(())
}

type Logarithmic<'a> = DrawingArea<
    SVGBackend<'a>,
    Cartesian2d<plotters::coord::combinators::LogCoord<f64>, RangedCoordf64>,
>;

fn marks(area: &Logarithmic<'_>, p: &Percentiles, color: RGBColor, y: f64) -> Drawn {
    let line = PathElement::new([(p.p50_ms, y), (p.max_ms, y)], color.mix(0.35).stroke_width(6));
    area.draw(&line).map_err(wrong)?;
    for (ms, size, filled) in
        [(p.p50_ms, 6, true), (p.p90_ms, 5, true), (p.p99_ms, 6, true), (p.max_ms, 4, false)]
    {
        let style = if filled { color.filled() } else { color.stroke_width(2) };
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
    fn durations_are_told_in_a_fitting_unit() {
        assert_eq!(
            [0.4, 12.3, 1_234.0, 30_000.0].map(shown_ms),
            ["0.4 ms", "12 ms", "1.2 s", "30 s"]
        );
    }
}
