//! netloom-holder: keeps Netloom's sockets open while the daemon restarts, where there is no systemd.
//!
//! dockerd has no time limit for a plugin that does not answer, and waits 15 s for one whose socket
//! refuses. So this process owns the listening sockets and hands them to each instance of the
//! daemon: a call that comes while the daemon restarts waits for the next instance. When the daemon
//! stays away, or is stopped, the plugin's socket goes, and dockerd's calls fail at once.
//!
//! It speaks no protocol and reads nothing from the sockets.
#![forbid(unsafe_code)]

mod backoff;
mod child;
mod door;
mod holder;
mod notify;
mod pulse;
mod sockets;

use clap::{Parser, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Keeps Netloom's sockets open while the daemon restarts, where there is no systemd.
///
/// It starts the daemon and the relay, and starts them again when they die: at once, then after
/// 0.1 s, 0.2 s and so on up to 2 s. SIGTERM, SIGINT and SIGHUP stop all of them.
#[derive(Debug, Parser)]
#[command(name = "netloom-holder", version, after_help = AFTER_HELP)]
struct Arguments {
    /// Where dockerd finds the plugin
    #[arg(
        long,
        value_name = "PATH",
        env = "NETLOOM_PLUGIN_SOCKET",
        default_value = "/run/docker/plugins/netloom.sock"
    )]
    plugin_socket: PathBuf,

    /// Where the command `netloom` finds the daemon
    #[arg(
        long,
        value_name = "PATH",
        env = "NETLOOM_API_SOCKET",
        default_value = "/run/netloom/api.sock"
    )]
    api_socket: PathBuf,

    /// The group that may use the local API
    #[arg(long, value_name = "GROUP", env = "NETLOOM_API_GROUP")]
    api_group: Option<String>,

    /// The directory for what lives until the next boot
    #[arg(
        long,
        value_name = "DIR",
        env = "NETLOOM_RUN_DIR",
        default_value = "/run/netloom"
    )]
    run_dir: PathBuf,

    /// The program that reserves published ports; it is started and watched too
    #[arg(long, value_name = "PATH")]
    relay: Option<PathBuf>,

    /// The plugin's socket goes when the daemon is not back after this time
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    away_limit: Duration,

    /// When the daemon counts as back
    #[arg(long, value_name = "WHEN", default_value = "notify")]
    ready: Ready,

    /// The daemon and its arguments
    #[arg(last = true, required = true, value_name = "DAEMON")]
    daemon: Vec<OsString>,
}

/// When the daemon counts as back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ready {
    /// When it sends READY=1 to NOTIFY_SOCKET, as netloomd does
    Notify,
    /// When it was started
    Started,
}

const AFTER_HELP: &str = "\
The daemon gets the sockets by systemd's convention: descriptors 3 and up, LISTEN_FDS and
LISTEN_FDNAMES=plugin:api. LISTEN_PID is not set: the descriptors are meant for whoever has them.

Examples:
  netloom-holder -- netloomd
  netloom-holder --relay /usr/local/sbin/netloom-relay -- netloomd --log debug

Exit codes: 0 stopped by a signal, 1 failed, 2 wrong usage.";

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    match holder::run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells the operator. The holder logs a few lines in its life, so it needs no more than this.
#[allow(
    clippy::print_stderr,
    reason = "a binary talks to its terminal or service log"
)]
fn say(what: &str) {
    eprintln!("netloom-holder: {what}");
}
