//! Lines in an SVG file.

use std::path::Path;

use anyhow::Context;
use plotters::prelude::*;

/// One line of a plot.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
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

/// Draws `lines` to `path`: `x` evenly, `y` by powers of ten.
///
/// # Errors
/// When there is nothing to draw, or the file cannot be written.
pub(crate) fn draw(path: &Path, title: &str, x: &str, y: &str, lines: &[Line]) -> anyhow::Result<()> {
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let widest = points().map(|point| point.0).fold(1.0, f64::max);
    let (least, most) = points().fold((f64::MAX, 0.0f64), |(least, most), point| (least.min(point.1), most.max(point.1)));
    anyhow::ensure!(most > 0.0, "there is nothing to draw");
    // Whole powers of ten around what there is.
    let (least, most) = (10f64.powf(least.max(0.1).log10().floor()), 10f64.powf(most.log10().ceil()));
    let area = SVGBackend::new(path, (840, 480)).into_drawing_area();
    let drawn = || -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(90)
            .build_cartesian_2d(0.0..widest * 1.02, (least..most).log_scale())?;
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 13))
            .light_line_style(RGBColor(240, 240, 240))
            .y_label_formatter(&|value| crate::format::number(*value))
            .draw()?;
        for (line, colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
            chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::MiddleRight)
            .background_style(WHITE.mix(0.9))
            .border_style(RGBColor(200, 200, 200))
            .label_font(("sans-serif", 14))
            .draw()?;
        area.present()
    };
    drawn().with_context(|| format!("{} cannot be drawn", path.display()))
}
