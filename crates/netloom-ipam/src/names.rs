//! Names of hosts in little memory: each host keeps those of all others.

use netloom_types::HostId;
use std::collections::BTreeSet;

/// Hosts by name, in order and each once, in one piece of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Each with the separator behind it.
    joined: Box<str>,
    count: usize,
}

/// Never in a host's id.
const SEPARATOR: char = '/';

impl Names {
    /// What is no host's id names no host, and is left out.
    pub(crate) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: BTreeSet<&str> = names
            .into_iter()
            .filter(|name| HostId::new(*name).is_ok())
            .collect();
        let mut joined = String::new();
        for name in &names {
            joined.push_str(name);
            joined.push(SEPARATOR);
        }
        Self {
            joined: joined.into(),
            count: names.len(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.joined.split_terminator(SEPARATOR)
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_order_and_once() {
        let names = Names::of(["h2", "h10", "h2", "", "a/b", "h1"]);
        assert_eq!(names.iter().collect::<Vec<_>>(), ["h1", "h10", "h2"]);
        assert_eq!(names.len(), 3);
        assert_eq!(Names::of([]), Names::default());
        assert_eq!(Names::default().iter().count(), 0);
    }
}
