//! The picture of a qualification: how many gaps were longer than each length, both axes logarithmic. Pure.

use std::fmt::Write as _;

use super::document::{CpuResult, Qualification};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 46.0;
const PLOT_WIDTH: f64 = 660.0;
const PLOT_HEIGHT: f64 = 340.0;
/// Colours that people with any colour vision tell apart (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444"];
/// As many lines are named.
const NAMED: usize = 22;

/// An SVG document that needs nothing else.
#[must_use]
pub fn svg(qualification: &Qualification) -> String {
    let lines: Vec<(String, usize, &CpuResult)> = qualification
        .phases
        .iter()
        .enumerate()
        .flat_map(|(phase, p)| {
            let name = move |r: &CpuResult| format!("CPU {}, {}, {}", r.cpu, p.subject, p.load);
            p.results.iter().map(move |r| (name(r), phase, r))
        })
        .collect();
    let longest = lines.iter().map(|(_, _, r)| r.max_ns).fold(1000.0, f64::max);
    let most = lines.iter().map(|(_, _, r)| r.samples as f64).fold(10.0, f64::max);
    let axes =
        Axes { decades_x: (longest.log10().ceil() - 1.0).max(1.0), decades_y: most.log10().ceil().max(1.0) };
    let height = TOP + PLOT_HEIGHT + 60.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"24\" \
         font-size=\"15\">Gaps of dedicated CPUs {}: {}, class {}</text>\n",
        qualification.cpus,
        qualification.isolation,
        qualification.latency_class.as_deref().unwrap_or("none"),
    );
    axes.draw(&mut svg);
    for (index, (name, phase, result)) in lines.iter().enumerate() {
        let colour = COLOURS.get(index % COLOURS.len()).copied().unwrap_or("#000");
        let dash = if phase % 2 == 0 { "" } else { " stroke-dasharray=\"5 3\"" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash} points=\"{}\"/>",
            axes.points(result)
        );
        if index < NAMED {
            let y = TOP + 8.0 + 16.0 * index as f64;
            let x = LEFT + PLOT_WIDTH + 14.0;
            let _ = writeln!(
                svg,
                "<line x1=\"{x}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/><text \
                 x=\"{}\" y=\"{}\">{name}</text>",
                x + 18.0,
                x + 24.0,
                y + 4.0
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// From 10 ns, and from one gap.
struct Axes {
    decades_x: f64,
    decades_y: f64,
}

impl Axes {
    fn x(&self, ns: f64) -> f64 {
        LEFT + (ns.max(10.0).log10() - 1.0) / self.decades_x * PLOT_WIDTH
    }

    fn y(&self, count: f64) -> f64 {
        TOP + PLOT_HEIGHT - count.max(1.0).log10() / self.decades_y * PLOT_HEIGHT
    }

    fn draw(&self, svg: &mut String) {
        let (right, bottom) = (LEFT + PLOT_WIDTH, TOP + PLOT_HEIGHT);
        for decade in (0u32..20).take_while(|d| f64::from(*d) <= self.decades_x) {
            let ns = 10f64.powi(decade.cast_signed() + 1);
            let x = self.x(ns);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" \
                 y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 18.0,
                time(ns)
            );
        }
        for decade in (0u32..20).take_while(|d| f64::from(*d) <= self.decades_y) {
            let y = self.y(10f64.powi(decade.cast_signed()));
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"{}\" \
                 y=\"{:.1}\" text-anchor=\"end\">10^{decade}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">length of a gap</text><text x=\"16\" y=\"{}\" \
             text-anchor=\"middle\" transform=\"rotate(-90 16 {})\">gaps at least that long</text>",
            LEFT + PLOT_WIDTH / 2.0,
            bottom + 40.0,
            TOP + PLOT_HEIGHT / 2.0,
            TOP + PLOT_HEIGHT / 2.0,
        );
    }

    /// How many gaps are at least as long as each length; points closer than half a pixel are one.
    fn points(&self, result: &CpuResult) -> String {
        let per_ns = if result.cycles_per_ns > 0.0 { result.cycles_per_ns } else { 1.0 };
        let mut left: u64 = result.histogram.iter().map(|(_, n)| n).sum();
        let (mut points, mut last) = (String::new(), (f64::MIN, f64::MIN));
        for (cycles, count) in &result.histogram {
            let (x, y) = (self.x(*cycles as f64 / per_ns), self.y(left as f64));
            left = left.saturating_sub(*count);
            if (x - last.0).abs() < 0.5 && (y - last.1).abs() < 0.5 && left > 0 {
                continue;
            }
            last = (x, y);
            let _ = write!(points, "{x:.1},{y:.1} ");
        }
        points
    }
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns >= 1e9 => format!("{} s", ns / 1e9),
        ns if ns >= 1e6 => format!("{} ms", ns / 1e6),
        ns if ns >= 1e3 => format!("{} µs", ns / 1e3),
        ns => format!("{ns} ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fingerprint, Gaps, Phase};
    use super::*;
    use crate::partition::Isolation;

    #[test]
    fn a_line_goes_from_all_gaps_to_the_longest() {
        let mut gaps = Gaps::default();
        gaps.add(40, 1_000_000);
        gaps.add(30_000, 2);
        let results = vec![CpuResult::of(4, 1, 0, 1.0, &gaps)];
        let phase = Phase { subject: "guest".into(), load: "memory".into(), results };
        let cpus = "4".parse().unwrap();
        let text = svg(&Qualification::new(Fingerprint::default(), cpus, Isolation::Isolated, vec![phase]));
        assert!(text.contains("CPU 4, guest, memory") && text.contains("class 50us"), "{text}");
        let points = text.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(points.split_whitespace().count(), 2, "{points}");
        assert!(text.ends_with("</svg>\n"));
    }
}
