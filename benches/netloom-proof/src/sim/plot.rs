//! Tables and pictures of what many hosts ask of the store.

use super::scale::{Phase, ScaleReport};
use std::fmt::Write as _;

/// One row a second.
#[must_use]
pub fn csv(report: &ScaleReport) -> String {
    let mut text = "phase,second,reads,rows,commits,served\n".to_owned();
    for phase in &report.phases {
        for row in &phase.seconds {
            let (second, reads, rows, commits) = (row.second, row.reads, row.rows, row.commits);
            let _ = writeln!(
                text,
                "{},{second},{reads},{rows},{commits},{}",
                phase.name, row.served
            );
        }
    }
    text
}

/// One picture a phase, below each other: reads, commits and containers served over time.
#[must_use]
pub fn svg(report: &ScaleReport) -> String {
    let height = report.phases.len() * PHASE_HEIGHT;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (place, phase) in report.phases.iter().enumerate() {
        draw(&mut text, phase, place * PHASE_HEIGHT);
    }
    text.push_str("</svg>\n");
    text
}

fn draw(text: &mut String, phase: &Phase, top: usize) {
    let count = phase.seconds.len().max(2) - 1;
    let most = phase.seconds.iter().map(|row| row.reads.max(row.commits));
    let most = most.max().unwrap_or(1).max(1);
    let all = phase
        .seconds
        .iter()
        .map(|row| row.served)
        .max()
        .unwrap_or(1)
        .max(1);
    let bottom = top + PHASE_HEIGHT - 30;
    let served = match phase.served_after_ms {
        Some(ms) => format!(
            "all {all} containers served after {:.1} s",
            as_float(ms) / 1000.0
        ),
        None => "not all served".to_owned(),
    };
    let _ = writeln!(
        text,
        "<text x=\"{LEFT}\" y=\"{}\">{}: {served}; at most {most} operations of the store in a \
         second</text>\n<line x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{}\" y2=\"{bottom}\" \
         stroke=\"black\"/>\n<text x=\"{}\" y=\"{}\">{count} s</text>",
        top + 18,
        phase.name,
        WIDTH - 20,
        WIDTH - 60,
        bottom + 16
    );
    for (place, (name, colour)) in LINES.iter().enumerate() {
        let mut points = String::new();
        for (second, row) in phase.seconds.iter().enumerate() {
            let (value, full) = match place {
                0 => (row.reads, most),
                1 => (row.commits, most),
                _ => (row.served, all),
            };
            let x = LEFT + second * (WIDTH - LEFT - 20) / count;
            let room = as_float(u64::try_from(bottom - top - 40).unwrap_or(0));
            let y = as_float(u64::try_from(bottom).unwrap_or(0))
                - as_float(value) / as_float(full) * room;
            let _ = write!(points, "{x},{y:.1} ");
        }
        let _ = writeln!(
            text,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{points}\"/>\n\
             <text x=\"{}\" y=\"{}\" fill=\"{colour}\">{name}</text>",
            LEFT + place * 170,
            bottom + 16
        );
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a picture needs no more than 52 bits"
)]
fn as_float(number: u64) -> f64 {
    number as f64
}

const WIDTH: usize = 760;
const PHASE_HEIGHT: usize = 220;
const LEFT: usize = 30;
const LINES: [(&str, &str); 3] = [
    ("reads a second", "#1f77b4"),
    ("commits a second", "#d62728"),
    ("containers served", "#2ca02c"),
];
