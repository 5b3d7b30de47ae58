//! The instructions of a comparison as a picture: one bar a way, on a logarithmic axis.

use std::fmt::Write;

use super::measured::Driver;
use super::report::Comparison;

/// Pixels.
const WIDTH: f64 = 860.0;
const NAMES: f64 = 220.0;
const BARS: f64 = 520.0;
const TOP: f64 = 74.0;
const ROW: f64 = 30.0;
const BAR: f64 = 20.0;

/// An SVG that stands by itself.
pub fn draw(comparison: &Comparison) -> String {
    let figures = || comparison.rows.iter().filter_map(|row| row.instructions_per_kib).filter(|figure| *figure > 0.0);
    let largest = figures().fold(10.0, f64::max);
    let smallest = figures().fold(largest, f64::min);
    // Whole decades, from below the smallest to above the largest.
    let (first, last) = ((smallest.log10() - 0.001).floor(), (largest.log10() + 0.001).ceil());
    let place = |figure: f64| NAMES + BARS * ((figure.log10() - first) / (last - first).max(1.0)).clamp(0.0, 1.0);
    let bottom = TOP + ROW * comparison.rows.len() as f64;
    let height = bottom + 56.0;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = svg.write_fmt(text);
        svg.push('\n');
    };
    line(format_args!(
        "<text x=\"16\" y=\"28\" font-size=\"17\" font-weight=\"bold\">Instructions for a KiB of a file, user and kernel</text>"
    ));
    let about = format!(
        "{} over {} ({} wire), {} passes of {} MiB, Linux {}, QEMU -cpu {}; logarithmic, less is better",
        comparison.protocol.to_uppercase(),
        comparison.nic,
        comparison.wire,
        comparison.passes,
        comparison.bytes >> 20,
        comparison.kernel,
        comparison.cpu
    );
    line(format_args!("<text x=\"16\" y=\"50\" fill=\"#555\">{}</text>", escaped(&about)));
    let decades = (last - first) as i32;
    for decade in 0..=decades {
        let figure = 10_f64.powf(first + f64::from(decade));
        let x = place(figure);
        line(format_args!("<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>"));
        line(format_args!("<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{figure}</text>", bottom + 18.0));
    }
    for (index, row) in comparison.rows.iter().enumerate() {
        let y = TOP + ROW * index as f64 + (ROW - BAR) / 2.0;
        let (colour, base) = (if row.driver == Driver::Kernel { "#8a97a8" } else { "#0b7a75" }, y + BAR - 5.0);
        line(format_args!("<text x=\"{}\" y=\"{base:.1}\" text-anchor=\"end\">{}</text>", NAMES - 8.0, escaped(&row.way)));
        match row.instructions_per_kib.filter(|figure| *figure > 0.0) {
            Some(figure) => {
                let end = place(figure);
                let width = (end - NAMES).max(1.0);
                line(format_args!("<rect x=\"{NAMES}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>"));
                line(format_args!("<text x=\"{:.1}\" y=\"{base:.1}\">{figure:.0}</text>", end + 6.0));
            }
            None => line(format_args!("<text x=\"{}\" y=\"{base:.1}\" fill=\"#a00\">not measured</text>", NAMES + 6.0)),
        }
    }
    line(format_args!(
        "<text x=\"16\" y=\"{:.1}\" fill=\"#555\">grey: the kernel's driver; green: pagewire. Measured by `pagewire compare`.</text>",
        bottom + 42.0
    ));
    svg.push_str("</svg>\n");
    svg
}

/// Text inside XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::compare::report::tests::comparison;

    /// The widths of the bars, in the order of rows.
    fn widths(svg: &str) -> Vec<f64> {
        let bars = svg.lines().filter(|line| line.starts_with("<rect x="));
        bars.filter_map(|line| line.split("width=\"").nth(1)?.split('"').next()?.parse().ok()).collect()
    }

    #[test]
    fn there_is_a_bar_for_each_figure_and_a_longer_one_for_more() {
        let svg = draw(&comparison());
        let widths = widths(&svg);
        assert_eq!(widths.len(), 3, "{svg}");
        assert!(widths[0] == widths[1] && widths[0] > widths[2] && widths[0] <= BARS, "{widths:?}");
        assert_eq!(svg.matches("not measured").count(), 1);
        assert!(svg.contains("SEND_ZC &lt;&amp;&gt;") && svg.contains(">1080<") && svg.contains(">59<"), "{svg}");
        // Of the axis: 58.6 to 1080 needs three decades.
        for label in [">10<", ">100<", ">1000<", ">10000<"] {
            assert!(svg.contains(label), "{label} in {svg}");
        }
    }

    #[test]
    fn it_is_well_formed() {
        let svg = draw(&comparison());
        let mut open: Vec<&str> = Vec::new();
        for tag in svg.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().unwrap()),
            }
        }
        assert!(open.is_empty() && svg.starts_with("<svg xmlns="));
    }

    #[test]
    fn without_figures_there_is_still_a_picture() {
        let mut empty = comparison();
        empty.rows.truncate(0);
        assert!(!draw(&empty).contains("NaN"));
        empty = comparison();
        empty.rows.iter_mut().for_each(|row| row.instructions_per_kib = None);
        let svg = draw(&empty);
        assert!(!svg.contains("NaN") && svg.matches("not measured").count() == 4);
    }
}
