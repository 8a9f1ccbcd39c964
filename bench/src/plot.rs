//! Lines in an SVG file.

use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// One line of a plot, or of a report.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What a plot says beside its lines.
pub(crate) struct Axes<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    /// Of the values upwards.
    pub(crate) scale: Scale,
}

/// How values are laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Evenly, from zero.
    Even,
    /// By powers of ten.
    Powers,
}

/// Strong enough on white and on black, and told apart by those who do not see red and green as two.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Draws `lines` to `path`.
///
/// # Errors
/// When there is nothing to draw, or the file cannot be written.
pub(crate) fn draw(path: &Path, axes: &Axes<'_>, lines: &[Line]) -> anyhow::Result<()> {
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let widest = points().map(|point| point.0).fold(1.0, f64::max);
    let (least, most) = points().fold((f64::MAX, 0.0f64), |(least, most), point| (least.min(point.1), most.max(point.1)));
    anyhow::ensure!(most > 0.0, "there is nothing to draw");
    let area = SVGBackend::new(path, (840, 480)).into_drawing_area();
    let across = 0.0..widest * 1.02;
    let drawn = match axes.scale {
        Scale::Even => onto(&area, axes, lines, across, 0.0..most * 1.05),
        // Whole powers of ten around what there is.
        Scale::Powers => {
            let (least, most) = (10f64.powf(least.max(0.1).log10().floor()), 10f64.powf(most.log10().ceil()));
            onto(&area, axes, lines, across, (least..most).log_scale())
        }
    };
    drawn.with_context(|| format!("{} cannot be drawn", path.display()))
}

fn onto<Y>(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    axes: &Axes<'_>,
    lines: &[Line],
    across: Range<f64>,
    upwards: Y,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(axes.title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(90)
        .build_cartesian_2d(across, upwards)?;
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .light_line_style(RGBColor(240, 240, 240))
        .x_label_formatter(&|value| {
            crate::format::number(value.round()).trim_end_matches(".00").trim_end_matches(".0").to_owned()
        })
        .y_label_formatter(&|value| crate::format::number(*value))
        .draw()?;
    for (line, colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        // Dots where there are few; a dense line needs none.
        if line.points.len() <= 20 {
            chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleRight)
        .background_style(WHITE.mix(0.9))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()
}
