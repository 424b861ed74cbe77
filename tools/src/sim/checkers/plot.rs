//! How stale reads were, as a picture: measured against expected, one point per setting.

use std::fmt::Write;

use super::staleness::{CLASSES, Count, Setting, Staleness};

const SIDE: f64 = 520.0;
const EDGE: f64 = 60.0;
/// One colour per class of time between write and read, the earliest first.
const COLORS: [&str; CLASSES.len()] =
    ["#b00020", "#e69f00", "#009e73", "#56b4e9", "#0072b2", "#555555"];

/// An SVG: across the share of stale reads that was expected, up the share that was measured with
/// twice its standard error. On the diagonal both are equal. `None`: no setting has so many reads.
pub fn svg(staleness: &Staleness, fewest: u64) -> Option<String> {
    let often = |(_, count): &(&Setting, &Count)| count.reads >= fewest.max(1);
    let points: Vec<Point> = staleness.0.iter().filter(often).map(Point::new).collect();
    let most = points.iter().map(|point| point.expected.max(point.measured + point.error));
    let most = most.reduce(f64::max)?.max(0.01);
    let mut text = frame(most);
    for point in &points {
        let (x, y) = (across(point.expected / most), up(point.measured / most));
        let high = up((point.measured + point.error) / most);
        let low = up(((point.measured - point.error) / most).max(0.0));
        let Setting { n, r, w, delay, late, class } = point.setting;
        let color = COLORS[class];
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "<g stroke=\"{color}\" fill=\"{color}\"><title>N={n} R={r} W={w}, delay {delay} us, \
             {:.1}% late, read within {} us: {:.2}% of {} stale, {:.2}% expected</title>\
             <line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{low:.1}\" y2=\"{high:.1}\"/>\
             <circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/></g>",
            f64::from(late) / 1e4,
            CLASSES[class],
            point.measured * 100.0,
            point.reads,
            point.expected * 100.0,
        );
    }
    text.push_str("</svg>\n");
    Some(text)
}

struct Point {
    setting: Setting,
    reads: u64,
    measured: f64,
    /// Twice the standard error of `measured`.
    error: f64,
    expected: f64,
}

impl Point {
    fn new((setting, count): (&Setting, &Count)) -> Point {
        let (reads, stale) = (count.reads as f64, count.stale as f64);
        // With one success and one failure more, so that "never" is not taken for certain.
        let guess = (stale + 1.0) / (reads + 2.0);
        Point {
            setting: *setting,
            reads: count.reads,
            measured: stale / reads,
            error: 2.0 * (guess * (1.0 - guess) / reads).sqrt(),
            expected: count.expected_share(),
        }
    }
}

fn across(share: f64) -> f64 {
    EDGE + share * SIDE
}

fn up(share: f64) -> f64 {
    EDGE + (1.0 - share) * SIDE
}

/// Axes, diagonal and legend, for shares up to `most`.
fn frame(most: f64) -> String {
    let size = SIDE + 2.0 * EDGE;
    let (left, right, top, bottom) = (across(0.0), across(1.0), up(1.0), up(0.0));
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{size}\" height=\"{size}\" \
         font-family=\"sans-serif\" font-size=\"12\"><rect width=\"100%\" height=\"100%\" \
         fill=\"#fff\"/><path d=\"M{left} {top}V{bottom}H{right}M{left} {bottom}L{right} {top}\" \
         stroke=\"#999\" fill=\"none\"/><text x=\"{left}\" y=\"24\">Stale reads where R + W is at \
         most N: measured (up) against the PBS expectation (across)</text>"
    );
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let (x, y, label) = (across(share), up(share), share * most * 100.0);
        let _ = write!(
            text,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{label:.1}%</text>\
             <text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{label:.1}%</text>",
            bottom + 18.0,
            left - 6.0,
        );
    }
    for (class, (color, most)) in COLORS.iter().zip(CLASSES).enumerate() {
        let y = top + 16.0 * (class as f64 + 1.0);
        let _ = write!(
            text,
            "<text x=\"{}\" y=\"{y}\" fill=\"{color}\">read within {most} us</text>",
            left + 12.0
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_seen_often_enough_is_a_point() {
        let mut seen = Staleness::default();
        for (class, stale) in [(0, 10), (5, 0)] {
            let setting = Setting { n: 3, r: 1, w: 1, delay: 2_000, late: 0, class };
            (0..40).for_each(|read| seen.add(setting, read < stale, 0));
        }
        let rare = Setting { n: 3, r: 2, w: 1, delay: 300, late: 0, class: 1 };
        seen.add(rare, true, 0);
        let picture = svg(&seen, 40).unwrap_or_default();
        assert_eq!(picture.matches("<circle").count(), 2, "{picture}");
        assert!(picture.contains("25.00% of 40 stale"), "{picture}");
        assert!(picture.contains(r#"cy="580.0""#), "none stale: at the bottom; {picture}");
        assert_eq!(svg(&seen, 41), None);
    }
}
