//! Starts the relay from the command line.
#![forbid(unsafe_code)]

use anyhow::Context;
use clap::Parser;
use netloom_relay::Relay;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::IsTerminal;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// Reserves published ports and carries loopback traffic to containers.
#[derive(Debug, Parser)]
#[command(name = "netloom-relay", version)]
struct Arguments {
    /// Directory of the control socket (relay.sock) and the list of ports (relay.json).
    #[arg(long, env = "NETLOOM_RUN_DIR", default_value = "/run/netloom")]
    run_dir: PathBuf,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("NETLOOM_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    // Each port and each connection takes a descriptor or two.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let relay = Relay::open(&arguments.run_dir).await?;
    tracing::info!(run_dir = %arguments.run_dir.display(), "relay is ready");
    tokio::select! {
        result = relay.serve() => result.context("serving the control socket"),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
