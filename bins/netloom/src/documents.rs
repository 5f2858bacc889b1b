//! Man pages and completions, made of the command line's definition.

use crate::args::Cli;
use anyhow::Context;
use clap::CommandFactory;
use std::fs;
use std::path::Path;

/// Completions for `shell`.
pub(crate) fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "netloom", &mut text);
    text
}

/// Writes one man page for the command and one for each subcommand; gives their count.
pub(crate) fn man(directory: &Path) -> anyhow::Result<usize> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    write_page(&command, "netloom", directory)
}

fn write_page(command: &clap::Command, name: &str, directory: &Path) -> anyhow::Result<usize> {
    let path = directory.join(format!("{name}.1"));
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().name(leaked(name))).render(&mut page)?;
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    let mut count = 1;
    for inner in command.get_subcommands().filter(|c| c.get_name() != "help") {
        count += write_page(inner, &format!("{name}-{}", inner.get_name()), directory)?;
    }
    Ok(count)
}

/// clap wants names that live as long as the program; there are some twenty, once.
fn leaked(name: &str) -> &'static str {
    Box::leak(name.to_owned().into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_has_a_man_page() {
        let directory = tempfile::tempdir().unwrap();
        let count = man(directory.path()).unwrap();
        assert!(count > 15, "{count}");
        let page = fs::read_to_string(directory.path().join("netloom-address-reserve.1")).unwrap();
        assert!(page.contains("Keep an address for somebody"), "{page}");
    }

    #[test]
    fn completions_know_the_subcommands() {
        let text = String::from_utf8(completions(clap_complete::Shell::Bash)).unwrap();
        assert!(text.contains("doctor"));
    }
}
