//! The one entrance for people and CI: setup, demo, test, lint, bench, record.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool at a terminal: it starts programs, measures by the wall clock and prints"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use netloom_lab::{FloorPlugin, Version};

mod attach;
mod bench;
mod crash;
mod demo;
mod e2e;
mod interrupt;
mod lint;
mod prove;
mod record;
mod repo;
mod setup;
mod shared;
mod suite;
mod term;
mod tidy;

/// Everything that people and CI do with this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "Examples:
  cargo xtask demo                         see Netloom at work on a real dockerd, and leave no trace
  cargo xtask test                         every suite
  cargo xtask test --only e2e ports        end-to-end scenarios whose name contains `ports`
  cargo xtask lint                         format, clippy, tidy
  cargo xtask bench alloc --quick          allocation beside its peers, in half a minute

Nothing touches the network of this machine: Docker runs in namespaces of its own.";

#[derive(Debug, Subcommand)]
enum Task {
    /// Install the system packages that are missing, and make the root folders of the test hosts.
    Setup(Consent),
    /// Show Netloom at work: a real dockerd, networks, ports, a killed daemon, a clean end.
    Demo(Consent),
    /// Run the suites: unit tests, tidy, and scenarios on real Dockers.
    Test(TestArgs),
    /// Check format, clippy and the house rules.
    Lint,
    /// Measure. `alloc` and `durable` are netloom-bench's; `attach` compares Docker networks.
    Bench(BenchArgs),
    /// Prove the address protocol, and write docs/PROOFS.md from the results.
    Prove(prove::ProveArgs),
    /// Record what real dockerds ask of a plugin, for replay in netloom-docker's tests.
    Record(RecordArgs),
    /// A plugin that does next to nothing.
    #[command(hide = true)]
    FloorPlugin(FloorArgs),
    /// Stands between dockerd and a plugin and writes down what they say.
    #[command(hide = true)]
    RecordProxy(ProxyArgs),
    /// Prints what an HTTP server answers; a static busybox cannot, where there is a libc.
    #[command(hide = true)]
    Fetch { url: String },
    /// Answers each datagram to this UDP port with itself.
    #[command(hide = true)]
    UdpEcho { port: u16 },
}

#[derive(Debug, Clone, Args)]
struct Consent {
    /// Install missing system packages without asking (as when CI=true).
    #[arg(long, short)]
    yes: bool,
}

/// One suite of `cargo xtask test`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// `cargo test --workspace`
    Unit,
    /// The house rules
    Tidy,
    /// Scenarios on real Dockers
    E2e,
    /// The daemon dies at every step of every command
    Crash,
    /// Two Docker hosts share pools through a real store
    Shared,
}

#[derive(Debug, Clone, Args)]
#[allow(clippy::struct_excessive_bools, reason = "the flags of a command line")]
#[command(after_help = "Examples:
  cargo xtask test                                 everything
  cargo xtask test --only unit                     cargo test --workspace
  cargo xtask test --only e2e --docker sid ports   scenarios named `ports` on the newest Docker
  cargo xtask test --only e2e --long soak          a thousand cycles instead of twenty
  cargo xtask test --only shared --long etcd       two hosts, 64 containers at once on each
  cargo xtask test --only crash --full             die at every step instead of at some
  cargo xtask test --only crash --full journal     die at the steps named `journal`")]
struct TestArgs {
    #[command(flatten)]
    consent: Consent,
    /// Only this suite.
    #[arg(long)]
    only: Option<Suite>,
    /// Only on this Docker: bookworm (20.10), trixie (26.1), sid (28 or newer).
    #[arg(long, value_name = "RELEASE")]
    docker: Option<Version>,
    /// Full numbers of the endurance scenarios, and every step of the crash matrix.
    #[arg(long, visible_alias = "full")]
    long: bool,
    /// The programs are built already.
    #[arg(long, hide = true)]
    prebuilt: bool,
    /// Only scenarios whose name contains this.
    filter: Option<String>,
}

#[derive(Debug, Clone, Args)]
struct BenchArgs {
    /// What to measure.
    what: bench::What,
    /// Passed on, such as `--quick` or `--json`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

#[derive(Debug, Clone, Args)]
struct RecordArgs {
    #[command(flatten)]
    consent: Consent,
    /// Only from this Docker.
    #[arg(long, value_name = "RELEASE")]
    docker: Option<Version>,
    /// Record afresh and compare with what is in the repository instead of writing it.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
struct FloorArgs {
    #[arg(long)]
    socket: PathBuf,
    #[arg(long)]
    record: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ProxyArgs {
    #[arg(long)]
    front: PathBuf,
    #[arg(long)]
    behind: PathBuf,
    #[arg(long)]
    out: PathBuf,
    #[arg(long)]
    docker: String,
    #[arg(long)]
    date: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            term::failure(&format!("{e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs one task; `false` where it ran to its end and found something wrong.
fn run(task: Task) -> Result<bool> {
    match task {
        Task::Setup(consent) => setup::run(&consent, &Version::ALL)
            .and_then(|()| setup::stores(&consent))
            .map(|()| true),
        Task::Demo(consent) => demo::run(&consent),
        Task::Test(args) => suite::run(&args),
        Task::Lint => lint::run(),
        Task::Bench(args) => bench::run(args.what, &args.rest),
        Task::Prove(args) => prove::run(&args),
        Task::Record(args) => record::run(&args),
        Task::FloorPlugin(args) => {
            let settings = FloorPlugin {
                record: args.record,
            };
            netloom_lab::serve_floor_plugin(&args.socket, &settings).map(|()| true)
        }
        Task::RecordProxy(args) => record::proxy(&args),
        Task::Fetch { url } => fetch(&url),
        Task::UdpEcho { port } => echo_datagrams(port),
    }
}

/// A UDP server for scenarios; busybox has none.
fn echo_datagrams(port: u16) -> Result<bool> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        if let Some(datagram) = buffer.get(..length) {
            socket.send_to(datagram, from)?;
        }
    }
}

/// A GET of `http://ADDRESS:PORT/` within three seconds.
fn fetch(url: &str) -> Result<bool> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address: SocketAddr = match address.parse::<IpAddr>() {
        Ok(ip) => (ip, 80).into(),
        Err(_) => address.parse()?,
    };
    let patience = Duration::from_secs(3);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    anyhow::ensure!(head.contains(" 200 "), "{head}");
    print!("{body}");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_filter_stands_after_the_options() {
        let words = ["xtask", "test", "--only", "e2e", "--docker", "sid", "ports"];
        let Task::Test(args) = Cli::parse_from(words).task else {
            panic!("the words name `test`");
        };
        assert_eq!(args.filter.as_deref(), Some("ports"));
        assert_eq!(args.docker, Some(Version::Sid));
    }
}
