//! How are outcomes drawn?
//!
//! Each workload has a bar for each engine, as long as its figure is of the best in that workload, with the figure
//! beside it: workloads differ by orders of magnitude, and engines are compared within one.

use crate::run::Outcome;
use crate::table::{Group, best, figure, groups, shown};
use std::fmt::Write;

/// Distances in pixels.
const WIDTH: f64 = 980.0;
const MARGIN: f64 = 24.0;
const LABEL: f64 = 110.0;
const BAR: f64 = 9.0;
const GAP: f64 = 10.0;
const BARS: f64 = WIDTH - 2.0 * MARGIN - LABEL - 90.0;
/// A colour for each engine, told apart by people who do not see all colours too (Okabe and Ito).
const COLOURS: [&str; 8] =
    ["#d55e00", "#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#e69f00", "#999999", "#000000"];

/// The outcomes as an SVG document.
pub fn draw(outcomes: &[Outcome]) -> String {
    let mut body = String::new();
    let mut y = MARGIN;
    for group in groups(outcomes) {
        // Writing to a `String` does not fail.
        let _ = draw_group(&mut body, &group, &mut y);
    }
    format!(
        r##"<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y:.0}" viewBox="0 0 {WIDTH} {y:.0}" font-family="Inter, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif">
<title>Key-value stores side by side</title>
<rect width="100%" height="100%" fill="#ffffff"/>
{body}</svg>
"##
    )
}

fn draw_group(body: &mut String, group: &Group<'_>, y: &mut f64) -> std::fmt::Result {
    text(body, MARGIN, *y + 14.0, 14.0, "#111111", &group.title)?;
    text(
        body,
        MARGIN,
        *y + 32.0,
        11.0,
        "#555555",
        "thousand operations/s; longer is better; reopen: ms, shorter is better",
    )?;
    *y += 44.0;
    for (i, engine) in group.engines.iter().enumerate() {
        let x = MARGIN + i as f64 * 118.0;
        rect(body, x, *y, 10.0, 10.0, colour(i))?;
        text(body, x + 14.0, *y + 9.0, 11.0, "#111111", engine)?;
    }
    *y += 24.0;
    for (workload, row) in &group.rows {
        text(body, MARGIN, *y + BAR, 12.0, "#111111", workload)?;
        let longest = row.values().map(|outcome| figure(outcome)).fold(0.0, f64::max);
        let first = best(row);
        for (i, engine) in group.engines.iter().enumerate() {
            let Some(outcome) = row.get(engine) else { continue };
            let long = (figure(outcome) / longest.max(f64::MIN_POSITIVE) * BARS).max(1.0);
            let x = MARGIN + LABEL;
            rect(body, x, *y, long, BAR, colour(i))?;
            let ink = if first == Some(*engine) { "#111111" } else { "#777777" };
            text(body, x + long + 5.0, *y + BAR - 0.5, 10.0, ink, &shown(figure(outcome)))?;
            *y += BAR + 1.0;
        }
        *y += GAP;
    }
    *y += MARGIN;
    Ok(())
}

const fn colour(i: usize) -> &'static str {
    COLOURS[i % COLOURS.len()]
}

fn rect(body: &mut String, x: f64, y: f64, w: f64, h: f64, fill: &str) -> std::fmt::Result {
    writeln!(body, r#"<rect x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}" fill="{fill}"/>"#)
}

fn text(body: &mut String, x: f64, y: f64, size: f64, fill: &str, text: &str) -> std::fmt::Result {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    writeln!(body, r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" fill="{fill}">{text}</text>"#)
}
