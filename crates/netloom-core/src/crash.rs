//! Named steps at which a test may kill the process.
//!
//! `crash_point!("journal.before_sync")` does nothing in a released binary. With the feature
//! `crash-points`, the variable `NETLOOM_CRASH_POINT=NAME` (or `NAME:3` for the third time) makes
//! the process abort there, without any clean-up, as `kill -9` would; and every reached name is
//! appended once to the file that `NETLOOM_CRASH_LOG` names, so that a test can show that each
//! point listed from the source was really passed.

/// Marks a step at which a test may kill the process. The name is a literal, so that the list of
/// all points can be read from the source.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        $crate::crash::reached($name)
    };
}

/// Does nothing: the process was built without crash points.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn reached(_name: &'static str) {}

/// Records the point, and aborts the process when it is the chosen one.
#[cfg(feature = "crash-points")]
pub fn reached(name: &'static str) {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::sync::{Mutex, OnceLock};

    static CHOSEN: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static SEEN: Mutex<BTreeMap<&'static str, u32>> = Mutex::new(BTreeMap::new());

    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var("NETLOOM_CRASH_POINT").ok()?;
        Some(match text.rsplit_once(':') {
            Some((name, nth)) => (name.to_owned(), nth.parse().unwrap_or(1)),
            None => (text, 1),
        })
    });
    let mut seen = SEEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let count = seen.entry(name).or_insert(0);
    *count += 1;
    if *count == 1
        && let Some(path) = std::env::var_os("NETLOOM_CRASH_LOG")
        && let Ok(mut log) = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
    {
        // A log that cannot be written shows as an unreached point, which fails the test.
        let _ = writeln!(log, "{name}");
    }
    if chosen
        .as_ref()
        .is_some_and(|(wanted, nth)| wanted == name && nth == count)
    {
        std::process::abort();
    }
}
