//! Grouped horizontal bars on a logarithmic scale, as SVG.

use std::fmt::Write;

/// Bars that belong together.
pub struct Group {
    /// What they have in common.
    pub label: String,
    /// Name and value of each; values are above zero.
    pub bars: Vec<(String, f64)>,
}

/// One plot.
pub struct Bars {
    /// What it shows, and the unit.
    pub title: String,
    /// From top to bottom.
    pub groups: Vec<Group>,
}

/// Geometry, pixels.
const WIDTH: f64 = 900.0;
const LEFT: f64 = 220.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 70.0;
const BAR: f64 = 13.0;
const GAP: f64 = 10.0;
/// Colours by order of appearance (Okabe and Ito: also apart for the colour-blind).
const COLOURS: [&str; 5] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#7f7f7f"];

impl Bars {
    /// The plot's text.
    pub fn svg(&self) -> String {
        let names = self.names();
        let bars: usize = self.groups.iter().map(|group| group.bars.len()).sum();
        let height = TOP + bars as f64 * BAR + self.groups.len() as f64 * GAP + 20.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"10\" y=\"20\" font-size=\"15\">{}</text>\n",
            escape(&self.title)
        );
        for (at, name) in names.iter().enumerate() {
            let x = LEFT + at as f64 * 130.0;
            // Writing into a string cannot fail, here and below.
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"30\" width=\"10\" height=\"10\" fill=\"{}\"/>\
                 <text x=\"{}\" y=\"39\">{}</text>",
                colour(at),
                x + 14.0,
                escape(name)
            );
        }
        let scale = self.scale();
        self.grid(&mut svg, scale, height);
        let mut y = TOP;
        for group in &self.groups {
            let middle = y + group.bars.len() as f64 * BAR / 2.0 + 4.0;
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                escape(&group.label)
            );
            for (name, value) in &group.bars {
                let at = names.iter().position(|known| known == name).unwrap_or(0);
                let end = place(scale, *value);
                let _ = writeln!(
                    svg,
                    "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"/>\
                     <text x=\"{:.1}\" y=\"{}\">{}</text>",
                    (end - LEFT).max(1.0),
                    BAR - 2.0,
                    colour(at),
                    end + 4.0,
                    y + BAR - 3.5,
                    short(*value)
                );
                y += BAR;
            }
            y += GAP;
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn grid(&self, svg: &mut String, scale: (f64, f64), height: f64) {
        let (low, high) = scale;
        for power in low as i32..=high as i32 {
            let (value, bottom) = (10_f64.powi(power), height - 10.0);
            let x = place(scale, value);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#666\">{}</text>",
                TOP - 6.0,
                TOP - 10.0,
                short(value)
            );
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (name, _) in self.groups.iter().flat_map(|group| &group.bars) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Powers of ten that hold all values.
    fn scale(&self) -> (f64, f64) {
        let values =
            self.groups.iter().flat_map(|group| &group.bars).map(|(_, value)| value.log10());
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value.floor()), high.max(value.ceil()))
        });
        if low > high { (0.0, 1.0) } else { (low, high.max(low + 1.0)) }
    }
}

/// Where a value is on the scale.
fn place((low, high): (f64, f64), value: f64) -> f64 {
    LEFT + (value.log10() - low) / (high - low) * (WIDTH - LEFT - RIGHT)
}

fn colour(at: usize) -> &'static str {
    COLOURS[at % COLOURS.len()]
}

/// Three digits and a unit.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e3 => (value / 1e3, " k"),
        value => (value, ""),
    };
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{unit}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_holds_every_bar_within_its_frame() {
        let group = |label: &str, bars: &[(&str, f64)]| Group {
            label: label.to_owned(),
            bars: bars.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        };
        let groups = vec![group("a<b", &[("x", 0.5), ("y", 20_000.0)]), group("c", &[("y", 3.0)])];
        let bars = Bars { title: "t".to_owned(), groups };
        let svg = bars.svg();
        assert!(svg.contains("a&lt;b") && svg.contains("20.0 k") && svg.contains(">0.50<"));
        assert_eq!(bars.scale(), (-1.0, 5.0));
        assert_eq!(place(bars.scale(), 1e5), WIDTH - RIGHT);
        assert_eq!(svg.matches("<rect").count(), 1 + 2 + 3, "frame, names, bars");
    }
}
