//! netloomd: the Docker network and IPAM plugin of one host.
//!
//! It wires the parts together and decides nothing itself: Docker's sockets and the local API are
//! two doors to one engine and one address management, over one store and one kernel.
#![forbid(unsafe_code)]

mod api;
mod background;
mod config;
mod daemon;
mod docker_admin;
mod docker_numbers;
mod doctor;
mod logs;
mod metrics;
mod next_pool;
mod parts;
mod run;
mod serve;
mod sockets;
mod state_dir;
mod uninstall;
#[cfg(test)]
mod whole;

use anyhow::Context;
use clap::Parser;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use config::{Config, Layer};

/// The Docker network and IPAM plugin of one host.
///
/// Settings come from flags, NETLOOM_* variables and the file, in this order; SIGTERM stops it
/// cleanly. Containers keep their network while it is stopped.
#[derive(Debug, Parser)]
#[command(name = "netloomd", version, after_help = AFTER_HELP)]
struct Arguments {
    /// The configuration file [default: /etc/netloom/netloom.toml, which may be missing]
    #[arg(long, value_name = "FILE", env = "NETLOOM_CONFIG")]
    config: Option<PathBuf>,

    /// Print the settings in force as a configuration file, and end
    #[arg(long)]
    print_config: bool,

    #[command(flatten)]
    settings: Layer,
}

const AFTER_HELP: &str = "\
Examples:
  netloomd                               run with /etc/netloom/netloom.toml, if it is there
  netloomd --log debug                   run, and say more
  netloomd --state-dir /srv/netloom --print-config

Exit codes: 0 stopped cleanly, 1 failed, 2 wrong usage.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Logging may be what failed, so the last word goes to standard error itself.
            let _ = writeln!(std::io::stderr(), "netloomd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(arguments.settings, arguments.config.as_deref())?;
    if arguments.print_config {
        let text = config.to_toml()?;
        std::io::stdout().write_all(text.as_bytes())?;
        return Ok(());
    }
    logs::start(&config)?;
    let state = state_dir::StateDir::open(&config.state_dir)?;
    let sockets = sockets::open(&config)?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(run::daemon(config, state, sockets))
}

/// An error with its causes in one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// `NETLOOM_BLESS=1 cargo test -p netloomd` writes the page anew.
    #[test]
    fn the_man_page_is_up_to_date() {
        let command = Arguments::command().next_help_heading(None::<&str>);
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .section("8")
            .date("")
            .render(&mut page)
            .unwrap();
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../packaging/man/netloomd.8"
        );
        if std::env::var_os("NETLOOM_BLESS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let kept = std::fs::read(path).unwrap_or_default();
        assert!(
            kept == page,
            "{path} differs from the flags: run with NETLOOM_BLESS=1"
        );
    }
}
