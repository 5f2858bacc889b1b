//! Words on a terminal: colour where there is one, plain text elsewhere.

use std::io::{IsTerminal, stdout};
use std::sync::LazyLock;

/// Colour only for a terminal, and not for who asked for none (no-color.org).
static COLOUR: LazyLock<bool> = LazyLock::new(|| {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
    stdout().is_terminal() && !refused && !dumb
});

/// A colour of the eight that every terminal has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Blue = 34,
    Grey = 90,
}

pub(crate) fn paint(text: &str, colour: Colour) -> String {
    if *COLOUR {
        format!("\x1b[{}m{text}\x1b[0m", colour as u8)
    } else {
        text.to_owned()
    }
}

pub(crate) fn bold(text: &str) -> String {
    if *COLOUR {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// A heading above a part of a task.
pub(crate) fn heading(text: &str) {
    println!("\n{}", bold(&paint(text, Colour::Blue)));
}

/// What is done now.
pub(crate) fn say(text: &str) {
    println!("  {text}");
}

/// Something that is done well.
pub(crate) fn good(text: &str) {
    println!("  {} {text}", paint("ok", Colour::Green));
}

/// A failure, on standard error.
pub(crate) fn failure(text: &str) {
    eprintln!("{} {text}", paint("failed:", Colour::Red));
}

/// Something less important, such as a program's log.
pub(crate) fn aside(text: &str) {
    for line in text.lines() {
        println!("      {}", paint(line, Colour::Grey));
    }
}

/// The closing line of a suite.
pub(crate) fn tally(passed: usize, failed: usize) {
    let line = format!("{passed} passed, {failed} failed");
    let colour = match (passed, failed) {
        (_, 1..) => Colour::Red,
        (0, _) => Colour::Yellow,
        _ => Colour::Green,
    };
    println!("\n{}", bold(&paint(&line, colour)));
}

/// Says so, loud, if Docker had to be helped to let a network go.
pub(crate) fn network_removed(removal: netloom_lab::Removal) {
    if removal == netloom_lab::Removal::AfterMiscount {
        say("Docker had counted the endpoints of a network wrong, and was restarted to see it");
    }
}
