//! Which etcd servers have bugs that touch what we promise.

/// A bug, and from which to which patch release of each line it lives.
struct Problem {
    what: &'static str,
    /// Minor version, first patch release with it, first patch release without it.
    lines: &'static [(u32, u32, u32)],
    /// Whether lines older than all of those have it and will not lose it.
    older: bool,
}

/// From etcd's own changelogs. Netloom stays safe on all of them, because an address is only ever
/// owned by a committed transaction; what suffers is named.
const PROBLEMS: [Problem; 6] = [
    Problem {
        what: "a member that was paused may answer reads with old data",
        lines: &[(4, 20, 42), (5, 0, 28), (6, 0, 9)],
        older: false,
    },
    Problem {
        what: "a member that has lost the leadership may end leases: live hosts may show as dead",
        lines: &[(4, 0, 31), (5, 0, 13)],
        older: true,
    },
    Problem {
        what: "a lease that is being ended is said to be renewed: a live host may show as dead",
        lines: &[(4, 0, 38), (5, 0, 23), (6, 0, 5)],
        older: true,
    },
    Problem {
        what: "watches may lose events around a compaction: changes are seen late",
        lines: &[(4, 0, 31), (5, 0, 13)],
        older: true,
    },
    Problem {
        what: "watches may lose a delete around a compaction: changes are seen late",
        lines: &[(4, 0, 36), (5, 0, 18)],
        older: true,
    },
    Problem {
        what: "watches may go back in time",
        lines: &[(4, 0, 25), (5, 0, 8)],
        older: true,
    },
];

/// The safety bugs that a server of this version (`3.5.16`, say) is known to have; a text that is
/// no such version has none known.
///
/// ```
/// assert!(netloom_etcd::known_problems("3.5.28").is_empty());
/// assert_eq!(netloom_etcd::known_problems("3.4.23").len(), 6);
/// ```
#[must_use]
pub fn known_problems(version: &str) -> Vec<&'static str> {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let mut parts = release.split('.').map(|part| part.parse::<u32>().ok());
    let (Some(Some(3)), Some(Some(minor)), Some(Some(patch))) =
        (parts.next(), parts.next(), parts.next())
    else {
        return Vec::new();
    };
    let has = |problem: &&Problem| match problem.lines.iter().find(|line| line.0 == minor) {
        Some((_, first, fixed)) => (*first..*fixed).contains(&patch),
        None => problem.older && problem.lines.iter().all(|line| minor < line.0),
    };
    PROBLEMS.iter().filter(has).map(|p| p.what).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_the_problems_of_its_changelog() {
        for (version, count) in [
            ("3.3.27", 5),
            ("3.4.19", 5),
            ("3.4.42", 0),
            ("3.5.16", 3),
            ("3.5.23", 1),
            ("3.5.30", 0),
            ("3.6.0", 2),
            ("3.6.9", 0),
            ("3.6.0-rc.1", 2),
            ("3.7.0", 0),
            ("4.0.0", 0),
            ("", 0),
            ("3.5", 0),
            ("3.x.1", 0),
        ] {
            assert_eq!(known_problems(version).len(), count, "{version}");
        }
    }
}
