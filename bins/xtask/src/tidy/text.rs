//! Rules about single files.

use super::Source;

/// One screenful after the other: a file that needs more than this is two files.
const MAX_LINES: usize = 700;

/// Crates that speak to the kernel or count allocations; they deny, and allow in one module.
const MAY_DENY: [&str; 2] = ["crates/netloom-linux/", "benches/netloom-bench/"];

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Lines that are not comments, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(n, line)| (n + 1, line))
    }

    fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

pub(super) fn unsafe_is_refused(sources: &[Source]) -> Vec<String> {
    let roots = ["/src/lib.rs", "/src/main.rs"];
    let is_root = |s: &&Source| roots.iter().any(|r| s.path.ends_with(r));
    let refuses = |s: &Source| {
        let may_deny = MAY_DENY.iter().any(|d| s.path.starts_with(d));
        s.text.contains("#![forbid(unsafe_code)]")
            || (may_deny && s.text.contains("#![deny(unsafe_code)]"))
    };
    let open = sources.iter().filter(is_root).filter(|s| !refuses(s));
    open.map(|s| s.at(1, "add #![forbid(unsafe_code)]"))
        .collect()
}

pub(super) fn files_are_short(sources: &[Source]) -> Vec<String> {
    let long = sources
        .iter()
        .filter(|s| s.is_rust() && s.text.lines().count() > MAX_LINES);
    long.map(|s| s.at(MAX_LINES, "split this file")).collect()
}

pub(super) fn libraries_are_silent(sources: &[Source]) -> Vec<String> {
    let library = |s: &&Source| s.is_rust() && s.path.starts_with("crates/") && !is_test(&s.path);
    let mut found = Vec::new();
    for source in sources.iter().filter(library) {
        // Tests stand at the end of a file, and may print.
        let code = source
            .code()
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
        for (n, line) in code {
            let printing = ["println!(", "eprintln!(", "print!(", "eprint!(", "dbg!("];
            if printing.iter().any(|p| line.contains(p)) {
                found.push(source.at(n, "a library does not print; use tracing"));
            }
        }
    }
    found
}

fn is_test(path: &str) -> bool {
    ["/tests/", "/examples/", "/benches/", "/tests.rs"]
        .iter()
        .any(|part| path.contains(part))
}

pub(super) fn nothing_is_left_for_later(sources: &[Source]) -> Vec<String> {
    // Put together here, so that this file does not find itself.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["todo", "!("],
        ["unimplemented", "!("],
    ];
    let words = words.map(|w| w.concat());
    let mut found = Vec::new();
    for source in sources {
        for (n, line) in source.lines() {
            if let Some(word) = words.iter().find(|w| line.contains(w.as_str())) {
                found.push(source.at(n, &format!("`{word}`: do it now, or write it in STATUS.md")));
            }
        }
    }
    found
}

pub(super) fn one_heading(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|s| s.path.ends_with(".md")) {
        let mut in_code = false;
        let mut headings = 0;
        for (_, line) in source.lines() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            headings += usize::from(!in_code && line.starts_with("# "));
        }
        if headings != 1 {
            found.push(source.at(
                1,
                &format!("{headings} first-level headings instead of one"),
            ));
        }
    }
    found
}

pub(super) fn no_machine_paths(sources: &[Source]) -> Vec<String> {
    let paths = [["/wo", "rk/"], ["/tmp", "/nl"], ["/ho", "me/"]].map(|p| p.concat());
    let mut found = Vec::new();
    for source in sources {
        for (n, line) in source.lines() {
            if let Some(path) = paths.iter().find(|p| line.contains(p.as_str())) {
                found.push(source.at(n, &format!("a path of one machine: {path}")));
            }
        }
    }
    found
}

pub(super) fn versions_stand_in_one_table(sources: &[Source]) -> Vec<String> {
    let member = |s: &&Source| {
        let below = ["crates/", "bins/", "benches/"]
            .iter()
            .any(|d| s.path.starts_with(d));
        below && s.path.ends_with("Cargo.toml")
    };
    let mut found = Vec::new();
    for source in sources.iter().filter(member) {
        let mut section = "";
        for (n, line) in source.lines() {
            if line.starts_with('[') {
                section = line;
            } else if section.contains("dependencies")
                && line.contains('=')
                && !line.trim_start().starts_with('#')
                && !line.contains("workspace = true")
            {
                found.push(source.at(n, "say `workspace = true`; versions stand in the root"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Vec<Source> {
        vec![Source {
            path: path.to_owned(),
            text: text.to_owned(),
        }]
    }

    #[test]
    fn a_crate_that_allows_unsafe_code_is_found() {
        assert_eq!(
            unsafe_is_refused(&source("crates/a/src/lib.rs", "//! A.\n")).len(),
            1
        );
        let deny = "#![deny(unsafe_code)]";
        assert_eq!(
            unsafe_is_refused(&source("crates/a/src/lib.rs", deny)).len(),
            1
        );
        assert!(unsafe_is_refused(&source("crates/netloom-linux/src/lib.rs", deny)).is_empty());
    }

    #[test]
    fn a_long_file_is_found() {
        assert!(files_are_short(&source("a.rs", &"\n".repeat(700))).is_empty());
        assert_eq!(files_are_short(&source("a.rs", &"\n".repeat(701))).len(), 1);
    }

    #[test]
    fn printing_in_a_library_is_found_but_not_in_its_tests_or_examples() {
        let text = "fn f() {\n    println!(\"x\");\n}\n";
        assert_eq!(
            libraries_are_silent(&source("crates/a/src/b.rs", text)).len(),
            1
        );
        assert!(libraries_are_silent(&source("crates/a/examples/b.rs", text)).is_empty());
        let tested = format!("#[cfg(test)]\nmod tests {{\n{text}}}\n");
        assert!(libraries_are_silent(&source("crates/a/src/b.rs", &tested)).is_empty());
        assert!(libraries_are_silent(&source("crates/a/src/b.rs", "/// println!()")).is_empty());
    }

    #[test]
    fn work_left_for_later_is_found() {
        let text = format!("// {}{}: later", "TO", "DO");
        assert_eq!(nothing_is_left_for_later(&source("a.rs", &text)).len(), 1);
    }

    #[test]
    fn two_first_level_headings_are_found_unless_in_code() {
        assert_eq!(one_heading(&source("a.md", "# A\n# B\n")).len(), 1);
        assert_eq!(one_heading(&source("a.md", "text\n")).len(), 1);
        assert!(one_heading(&source("a.md", "# A\n```sh\n# comment\n```\n")).is_empty());
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        let text = format!("see {}{}somebody", "/ho", "me/");
        assert_eq!(no_machine_paths(&source("a.md", &text)).len(), 1);
    }

    #[test]
    fn a_version_outside_the_table_is_found() {
        let text = "[dependencies]\nserde = \"1\"\nnix.workspace = true\n";
        assert_eq!(
            versions_stand_in_one_table(&source("crates/a/Cargo.toml", text)).len(),
            1
        );
    }
}
