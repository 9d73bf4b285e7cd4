//! Charts as SVG. Colours are drawn as for a light page; the page gives each of them another value
//! in dark mode (`INKS`), so that one drawing serves both.

use std::io::Error as IoError;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::figures::{percent, thousands};
use crate::report::generation::ErrorShare;

/// The width of a drawing in its own units; a page shows it at half that size or more.
const WIDTH: u32 = 760;
const HEIGHT: u32 = 380;
const TEXT: u32 = 32;
const LEFT: u32 = 124;
const BELOW: u32 = 56;
const MARGIN: u32 = 10;
/// About how many labels an axis has.
const LABELS: usize = 8;
/// The distance between an axis and a label beside it.
const GAP: i32 = 12;
/// More bars than this are drawn as means of neighbours.
const BARS_MAX: usize = 64;

const INK: RGBColor = RGBColor(0x59, 0x63, 0x6e);
const LINE: RGBColor = RGBColor(0xd1, 0xd9, 0xe0);
const WITHOUT: RGBColor = RGBColor(0xb6, 0xc2, 0xcf);
const WITH: RGBColor = RGBColor(0x09, 0x69, 0xda);
const HELD_OUT: RGBColor = RGBColor(0xbc, 0x4c, 0x00);
const OTHER: RGBColor = RGBColor(0x82, 0x50, 0xdf);

/// The colours of the drawings, with the names by which the page knows them.
pub(crate) const INKS: [Ink; 6] = [
    Ink::new("dim", INK),
    Ink::new("line", LINE),
    Ink::new("without", WITHOUT),
    Ink::new("with", WITH),
    Ink::new("held-out", HELD_OUT),
    Ink::new("other", OTHER),
];

/// A colour of the drawings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ink {
    /// The colour's name in the page.
    pub(crate) name: &'static str,
    colour: RGBColor,
}

impl Ink {
    const fn new(name: &'static str, colour: RGBColor) -> Self {
        Self { name, colour }
    }

    /// The colour as a drawing writes it.
    pub(crate) fn svg(&self) -> String {
        let RGBColor(red, green, blue) = self.colour;
        format!("#{red:02X}{green:02X}{blue:02X}")
    }
}

/// The error of drawing in memory.
pub(crate) type DrawingError = DrawingAreaErrorKind<IoError>;

/// A layer in a chart, or the mean of some neighbouring layers.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    /// The label below the bar.
    pub(crate) label: String,
    /// The error of the quantized layer alone.
    pub(crate) without: f64,
    /// The error with the correction.
    pub(crate) with: f64,
    /// The share that the correction leaves on held-out rows.
    pub(crate) held_out: Option<ErrorShare>,
    /// The error of nearest rounding, where W~ was rounded otherwise.
    pub(crate) nearest: Option<f64>,
}

/// A line through points.
#[derive(Debug)]
pub(crate) struct Track {
    /// The line's colour.
    pub(crate) ink: Ink,
    /// The line's points, from left to right.
    pub(crate) points: Vec<TrackPoint>,
}

/// A point of a line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TrackPoint {
    /// The number of rows.
    pub(crate) rows: f64,
    /// The share of the error that is left.
    pub(crate) left: f64,
}

/// A horizontal bar of bits of a weight.
#[derive(Debug)]
pub(crate) struct Beam {
    /// The label beside it.
    pub(crate) label: String,
    /// Its parts from left to right.
    pub(crate) parts: Vec<BeamPart>,
}

/// A part of a beam.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BeamPart {
    /// The part's length.
    pub(crate) bits: f64,
    /// The part's colour.
    pub(crate) ink: Ink,
}

/// The colour with this name.
#[must_use]
pub(crate) fn ink(name: &str) -> Ink {
    let found = INKS.into_iter().find(|ink| ink.name == name);
    found.unwrap_or(INKS[0])
}

fn text() -> TextStyle<'static> {
    ("sans-serif", TEXT).into_font().color(&INK)
}

/// Replaces neighbours by their mean, where there are more bars than can be told apart.
fn binned(bars: &[Bar]) -> Vec<Bar> {
    let size = bars.len().div_ceil(BARS_MAX).max(1);
    if size == 1 {
        return bars.to_vec();
    }
    let of = |bars: &[Bar]| {
        let mean = |of: fn(&Bar) -> f64| bars.iter().map(of).sum::<f64>() / bars.len() as f64;
        Bar {
            label: bars[0].label.clone(),
            without: mean(|bar| bar.without),
            with: mean(|bar| bar.with),
            held_out: None,
            nearest: None,
        }
    };
    bars.chunks(size).map(of).collect()
}

/// How many neighbouring layers a bar is the mean of.
#[must_use]
pub(crate) fn layers_in_a_bar(layers: usize) -> usize {
    layers.div_ceil(BARS_MAX).max(1)
}

/// Draws errors before and after the correction as bars, from left to right.
///
/// # Errors
/// The drawing's error.
pub(crate) fn bars(of: &[Bar]) -> Result<String, DrawingError> {
    let bars = binned(of);
    let step = bars.len().div_ceil(LABELS).max(1);
    let highest = bars.iter().flat_map(|bar| {
        let held = bar
            .held_out
            .map(|of| of.left + of.half_width.unwrap_or(0.0));
        [bar.without, bar.with, held.unwrap_or(0.0) * bar.without]
            .into_iter()
            .chain(bar.nearest)
    });
    let top = above(highest);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(MARGIN)
            .x_label_area_size(BELOW)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(0.0..bars.len() as f64, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .bold_line_style(LINE)
            .light_line_style(TRANSPARENT)
            .axis_style(LINE)
            .label_style(text())
            .y_labels(5)
            .y_label_formatter(&|y| percent(*y))
            .draw()?;
        for (index, bar) in bars.iter().enumerate().step_by(step) {
            let (x, y) = chart.backend_coord(&(index as f64 + 0.5, 0.0));
            let below = text().pos(Pos::new(HPos::Center, VPos::Top));
            area.draw(&Text::new(bar.label.clone(), (x, y + GAP), below))?;
        }
        let of_bars = |inset: f64, height: fn(&Bar) -> f64, ink: RGBColor| {
            bars.iter().enumerate().map(move |(index, bar)| {
                let (left, right) = (index as f64 + inset, (index + 1) as f64 - inset);
                Rectangle::new([(left, 0.0), (right, height(bar))], ink.filled())
            })
        };
        chart.draw_series(of_bars(0.12, |bar| bar.without, WITHOUT))?;
        chart.draw_series(of_bars(0.28, |bar| bar.with, WITH))?;
        chart.draw_series(nearest_marks(&bars))?;
        chart.draw_series(held_out_marks(&bars))?;
        chart.draw_series(held_out_points(&bars))?;
        area.present()?;
    }
    Ok(svg)
}

type Stroke = PathElement<(f64, f64)>;
type Dot = Circle<(f64, f64), i32>;

/// Strokes across the bars at the error of nearest rounding.
fn nearest_marks(bars: &[Bar]) -> impl Iterator<Item = Stroke> {
    bars.iter().enumerate().filter_map(|(index, bar)| {
        let (left, right, height) = (index as f64 + 0.06, index as f64 + 0.94, bar.nearest?);
        let line = vec![(left, height), (right, height)];
        Some(PathElement::new(line, OTHER.stroke_width(4)))
    })
}

/// Strokes for the interval of the held-out share, on the scale of the bar.
fn held_out_marks(bars: &[Bar]) -> impl Iterator<Item = Stroke> {
    bars.iter().enumerate().filter_map(|(index, bar)| {
        let (x, held) = (index as f64 + 0.5, bar.held_out?);
        let half = held.half_width?;
        let ends = [held.left - half, held.left + half];
        let line = ends.map(|share| (x, share.max(0.0) * bar.without));
        Some(PathElement::new(line.to_vec(), HELD_OUT.stroke_width(4)))
    })
}

fn held_out_points(bars: &[Bar]) -> impl Iterator<Item = Dot> {
    bars.iter().enumerate().filter_map(|(index, bar)| {
        let at = (index as f64 + 0.5, bar.held_out?.left * bar.without);
        Some(Circle::new(at, 5, HELD_OUT.filled()))
    })
}

/// Draws lines over numbers of rows.
///
/// # Errors
/// The drawing's error.
pub(crate) fn lines(of: &[Track]) -> Result<String, DrawingError> {
    let points = || of.iter().flat_map(|line| &line.points);
    let right = above(points().map(|point| point.rows));
    let top = above(points().map(|point| point.left));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(MARGIN)
            .margin_right(4 * MARGIN)
            .x_label_area_size(BELOW)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(0.0..right, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(LINE)
            .light_line_style(TRANSPARENT)
            .axis_style(LINE)
            .label_style(text())
            .x_labels(5)
            .y_labels(5)
            .x_label_formatter(&|x| thousands(*x))
            .y_label_formatter(&|y| percent(*y))
            .draw()?;
        for line in of {
            let points = line.points.iter().map(|point| (point.rows, point.left));
            let path = PathElement::new(points.clone().collect::<Vec<_>>(), line.stroke());
            chart.draw_series([path])?;
            let ink = line.ink.colour;
            chart.draw_series(points.map(|at| Circle::new(at, 7, ink.filled())))?;
        }
        area.present()?;
    }
    Ok(svg)
}

impl Track {
    fn stroke(&self) -> ShapeStyle {
        self.ink.colour.stroke_width(4)
    }
}

/// Draws bits of a weight, one beam below the other.
///
/// # Errors
/// The drawing's error.
pub(crate) fn beams(of: &[Beam]) -> Result<String, DrawingError> {
    let count = of.len() as f64;
    let centre = |index: usize| count - index as f64 - 0.5;
    let lengths = of
        .iter()
        .map(|beam| beam.parts.iter().map(|part| part.bits).sum());
    let right = above(lengths);
    let mut svg = String::new();
    {
        let height = BELOW + 2 * MARGIN + u32::try_from(of.len()).unwrap_or(1) * 56;
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(MARGIN)
            .x_label_area_size(BELOW)
            .y_label_area_size(2 * LEFT)
            .build_cartesian_2d(0.0..right, 0.0..count)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .bold_line_style(LINE)
            .light_line_style(TRANSPARENT)
            .axis_style(LINE)
            .label_style(text())
            .x_labels(6)
            .x_label_formatter(&|x| format!("{x}"))
            .draw()?;
        for (index, beam) in of.iter().enumerate() {
            let (x, y) = chart.backend_coord(&(0.0, centre(index)));
            let beside = text().pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(beam.label.clone(), (x - GAP, y), beside))?;
            let mut left = 0.0;
            for part in &beam.parts {
                let (low, high) = (centre(index) - 0.32, centre(index) + 0.32);
                let corners = [(left, low), (left + part.bits, high)];
                chart.draw_series([Rectangle::new(corners, part.ink.colour.filled())])?;
                left += part.bits;
            }
        }
        area.present()?;
    }
    Ok(svg)
}

/// A number slightly above the largest, and always above 0.
fn above(of: impl Iterator<Item = f64>) -> f64 {
    let largest = of.filter(|value| value.is_finite()).fold(0.0, f64::max);
    match largest > 0.0 {
        true => 1.06 * largest,
        false => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str) -> Bar {
        Bar {
            label: label.into(),
            without: 0.2,
            with: 0.05,
            held_out: Some(ErrorShare {
                left: 0.3,
                half_width: Some(0.1),
            }),
            nearest: Some(0.1),
        }
    }

    #[test]
    fn a_bar_is_drawn_for_each_layer_until_they_are_too_many() {
        let of = |count| bars(&vec![bar("<3>"); count]).unwrap();
        let drawn = |svg: &str, ink: &str| svg.matches(&format!("fill=\"{ink}\"")).count();
        let svg = of(24);
        assert_eq!(drawn(&svg, &ink("with").svg()), 24);
        assert_eq!(drawn(&svg, &ink("held-out").svg()), 24);
        assert!(svg.contains("&lt;3&gt;") && !svg.contains("<3>"));
        assert_eq!(drawn(&of(6_144), &ink("with").svg()), BARS_MAX);
        assert_eq!(layers_in_a_bar(6_144), 96);
        assert_eq!(layers_in_a_bar(30), 1);
    }

    #[test]
    fn nothing_and_zeros_are_drawn_as_well() {
        assert!(bars(&[]).unwrap().ends_with("</svg>\n"));
        let zero = Bar {
            without: 0.0,
            with: 0.0,
            held_out: None,
            nearest: None,
            ..bar("0")
        };
        assert!(bars(&[zero]).unwrap().contains("<rect"));
        assert!(lines(&[]).unwrap().contains("<svg"));
        assert!(beams(&[]).unwrap().contains("<svg"));
    }
}
