//! Named steps at which a test may kill the process.
//!
//! `crash_point!("journal.before_sync")` does nothing in a released binary. With the feature
//! `crash-points`, the variable `NETLOOM_CRASH_POINT=NAME` (or `NAME:3` for the third time) makes
//! the process abort there, without any clean-up, as `kill -9` would; and every reached name is
//! appended once to the file that `NETLOOM_CRASH_LOG` names, so that a test can show that each
//! point listed from the source was really passed.
//!
//! A daemon that is started again with the same environment would die there again. For such ones
//! `NETLOOM_CRASH_DIR` names a folder in which a test leaves the file `plan`, at any time: its first
//! line is `NAME` or `NAME:3`, and is taken out before the process dies there. Lines below it are
//! for the instances that follow. The file `trace` gets one line for every pass of every point.

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
    let count = chosen::count(name);
    if count == 1
        && let Some(path) = std::env::var_os("NETLOOM_CRASH_LOG")
    {
        chosen::append(path.as_ref(), name);
    }
    if chosen::by_variable(name, count) || chosen::by_plan(name) {
        std::process::abort();
    }
}

#[cfg(feature = "crash-points")]
mod chosen {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, OnceLock, PoisonError};

    /// Which time this is that `name` is passed.
    pub(super) fn count(name: &'static str) -> u32 {
        static SEEN: Mutex<BTreeMap<&'static str, u32>> = Mutex::new(BTreeMap::new());
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        let count = seen.entry(name).or_insert(0);
        *count += 1;
        *count
    }

    /// A log that cannot be written shows as an unreached point, which fails the test.
    pub(super) fn append(path: &Path, name: &str) {
        let mut options = std::fs::OpenOptions::new();
        if let Ok(mut log) = options.append(true).create(true).open(path) {
            // One write, so that lines of several threads do not mix.
            let _ = log.write_all(format!("{name}\n").as_bytes());
        }
    }

    fn parse(line: &str) -> (&str, u32) {
        match line.rsplit_once(':') {
            Some((name, nth)) => (name, nth.parse().unwrap_or(1)),
            None => (line, 1),
        }
    }

    pub(super) fn by_variable(name: &str, count: u32) -> bool {
        static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| std::env::var("NETLOOM_CRASH_POINT").ok());
        chosen
            .as_deref()
            .is_some_and(|line| parse(line) == (name, count))
    }

    /// Whether the plan's first line is due; takes it out, or counts it down.
    pub(super) fn by_plan(name: &str) -> bool {
        static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let folder = FOLDER.get_or_init(|| std::env::var_os("NETLOOM_CRASH_DIR").map(Into::into));
        let Some(folder) = folder else {
            return false;
        };
        // Two threads at one point must not both count the same line down.
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        append(&folder.join("trace"), name);
        let path = folder.join("plan");
        let Ok(plan) = std::fs::read_to_string(&path) else {
            return false;
        };
        let (first, rest) = plan.split_once('\n').unwrap_or((plan.as_str(), ""));
        let (wanted, nth) = parse(first);
        if wanted != name {
            return false;
        }
        let due = nth <= 1;
        let left = match (due, rest.trim()) {
            (true, "") => return std::fs::remove_file(&path).is_ok(),
            (true, _) => rest.to_owned(),
            (false, _) => format!("{name}:{}\n{rest}", nth - 1),
        };
        // By a rename, so that the test never reads half a plan. A plan that cannot be rewritten
        // kills nobody, and the test sees that it still stands.
        let new = folder.join("plan.new");
        std::fs::write(&new, left).is_ok() && std::fs::rename(&new, &path).is_ok() && due
    }
}
