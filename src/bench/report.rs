//! A page with the curves: HTML with the drawings in it, which needs nothing else.

use std::fmt::Write;

use super::Figures;

/// A page of measurements that differ in their burst, or of a single one. `title` is plain text.
pub fn html(title: &str, figures: &[Figures]) -> String {
    let title = escape(title);
    let mut page =
        format!("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n{STYLE}\n<h1>{title}</h1>\n");
    let over_bursts = |figure: fn(&Figures) -> f64| figures.iter().map(|one| (one.burst.to_string(), figure(one))).collect::<Vec<_>>();
    if figures.len() > 1 {
        page += &chart("Packets a second", "burst", &over_bursts(|one| one.pps));
        page += &chart("Driver cycles a packet", "burst", &over_bursts(|one| one.cycles_per_packet));
    }
    for latency in figures.iter().filter_map(|one| one.latency) {
        let points = [
            ("min", latency.min_ns),
            ("50", latency.p50_ns),
            ("90", latency.p90_ns),
            ("99", latency.p99_ns),
            ("99.9", latency.p99_9_ns),
            ("99.99", latency.p99_99_ns),
            ("max", latency.max_ns),
        ];
        let points: Vec<_> = points.into_iter().map(|(name, time)| (name.to_owned(), time as f64 / 1e3)).collect();
        page += &chart(&format!("Round trip in µs, mean {:.1}", latency.mean_ns / 1e3), "percentile", &points);
    }
    page += &table(figures);
    page += "</html>\n";
    page
}

const STYLE: &str = "<style>
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8884 }
svg { width: 100%; height: auto } svg text { fill: currentColor; font-size: 13px }
.grid { stroke: #8884 } .curve { fill: none; stroke: #2a78d6; stroke-width: 2 } .point { fill: #2a78d6 }
</style>";

/// The size of a drawing, and the room of its axes' labels.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 90.0;
const BELOW: f64 = 45.0;
const ABOVE: f64 = 15.0;
const LINES: usize = 4;

/// A curve through points that are evenly spaced, from 0 up.
fn chart(title: &str, axis: &str, points: &[(String, f64)]) -> String {
    let top = round_up(points.iter().map(|(_, value)| *value).fold(0.0, f64::max));
    let step = (WIDTH - LEFT - 20.0) / points.len().saturating_sub(1).max(1) as f64;
    let place = |index: usize| LEFT + step * index as f64;
    let height = |value: f64| HEIGHT - BELOW - value / top * (HEIGHT - BELOW - ABOVE);
    let mut svg = format!("<h2>{title}</h2>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n");
    for line in 0..=LINES {
        let value = top * line as f64 / LINES as f64;
        let (y, right, before) = (height(value), WIDTH - 20.0, LEFT - 8.0);
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        let _ = writeln!(svg, "<text x=\"{before}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", y + 4.0, short(value));
    }
    let curve: Vec<String> =
        points.iter().enumerate().map(|(index, (_, value))| format!("{:.1},{:.1}", place(index), height(*value))).collect();
    let _ = writeln!(svg, "<polyline class=\"curve\" points=\"{}\"/>", curve.join(" "));
    for (index, (name, value)) in points.iter().enumerate() {
        let (x, y, below) = (place(index), height(*value), HEIGHT - BELOW + 18.0);
        let _ =
            writeln!(svg, "<circle class=\"point\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{axis} {name}: {value:.1}</title></circle>");
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{below}\" text-anchor=\"middle\">{name}</text>");
    }
    let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{axis}</text>\n</svg>", WIDTH / 2.0, HEIGHT - 5.0);
    svg
}

/// The next of 1, 2, 4, 5, 8 times a power of ten, which four lines divide well.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 8.0, 10.0].into_iter().map(|factor| factor * power).find(|top| *top >= value).unwrap_or(value)
}

/// A number with few digits.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e9 => (value / 1e9, " G"),
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e3 => (value / 1e3, " k"),
        value => (value, ""),
    };
    let digits = format!("{value:.2}");
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

fn table(figures: &[Figures]) -> String {
    let mut table = String::from(
        "<h2>Figures</h2>\n<table>\n<tr><th>burst<th>queues<th>packets<th>packets/s<th>Gbit/s<th>cycles/packet<th>idle polls<th>doorbells<th>drops<th>quiet end, s\n",
    );
    for one in figures {
        let Figures { burst, queues, frames, pps, cycles_per_packet, idle_polls, doorbells, drops, quiet_seconds, .. } = one;
        let rate = one.bits_per_second / 1e9;
        let _ = writeln!(
            table,
            "<tr><td>{burst}<td>{queues}<td>{frames}<td>{pps:.0}<td>{rate:.3}<td>{cycles_per_packet:.1}<td>{idle_polls}<td>{doorbells}<td>{drops}<td>{quiet_seconds:.3}"
        );
    }
    table + "</table>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number_that_nothing_passes() {
        for (value, top) in [(0.0, 1.0), (1.0, 1.0), (3.3, 4.0), (87.0, 100.0), (4.2e6, 5e6), (0.06, 0.08)] {
            assert!((round_up(value) - top).abs() < top * 1e-9, "{value}: {}", round_up(value));
        }
        assert_eq!([0.0, 12.5, 2500.0, 1e6, 7.5e9].map(short), ["0", "12.5", "2.5 k", "1 M", "7.5 G"]);
    }

    #[test]
    fn a_chart_has_each_point_once_and_inside() {
        let chart = chart("Rate", "burst", &[("1".into(), 10.0), ("2".into(), 40.0), ("4".into(), 0.0)]);
        assert_eq!(chart.matches("<circle").count(), 3);
        // 40 is the top of its axis, 0 its bottom.
        assert!(chart.contains("<polyline class=\"curve\" points=\"90.0,195.0 435.0,15.0 780.0,255.0\"/>"), "{chart}");
        assert_eq!(escape("a<b>&\"c\""), "a&lt;b&gt;&amp;&quot;c&quot;");
    }
}
