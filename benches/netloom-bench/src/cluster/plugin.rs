//! The same calls through the plugin protocol: with addresses behind them, and with nothing.

use super::figures::{Figure, Row};
use super::fleet::{Ground, Worker};
use super::histogram::Laps;
use super::job::{Job, Outcome, Pattern, Work, read_line};
use super::nothing::Nothing;
use super::subject;
use super::worker::begin;
use anyhow::Context;
use netloom_core::Ipam;
use netloom_core::store::Store;
use netloom_docker::PluginState;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Opens what stands behind the protocol and serves it on a socket; gives the pool's id.
pub(super) async fn serve(job: &Job, store: Arc<dyn Store>) -> anyhow::Result<String> {
    let (ipam, pool): (Arc<dyn Ipam>, String) = match job.work {
        Work::PluginNetloom => {
            let (manager, pool) = subject::open(job, store, Pattern::Fresh).await?;
            (manager, pool.as_str().to_owned())
        }
        _ => (Arc::new(Nothing), "pool".to_owned()),
    };
    let router = netloom_docker::router(PluginState::new(Arc::new(Nothing), ipam));
    let listener = UnixListener::bind(socket(&job.directory))?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(pool)
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("plugin.sock")
}

/// Measures one of the two from `callers` connections that are kept.
pub(super) fn measure(
    ground: &mut Ground,
    work: Work,
    callers: usize,
    turn: Duration,
) -> anyhow::Result<Figure> {
    let jobs = ground.jobs(work, 1, callers)?;
    let job = jobs.first().context("one job was asked for")?;
    let mut worker = Worker::start(job)?;
    let pool: String = read_line(&mut worker.output)?;
    let outcome = ground.runtime.block_on(call(job, &pool, turn))?;
    let row = Row {
        work,
        hosts: 1,
        callers,
    };
    Ok(Figure::of(row, 1, &[outcome]))
}

async fn call(job: &Job, pool: &str, turn: Duration) -> anyhow::Result<Outcome> {
    let body = serde_json::json!({
        "PoolID": pool,
        "Address": "",
        "Options": { "com.docker.network.endpoint.macaddress": "02:42:0a:10:00:05" },
    })
    .to_string();
    let request = format!(
        "POST /IpamDriver.RequestAddress HTTP/1.1\r\nHost: plugin\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let request: Arc<str> = request.into();
    let begun = begin();
    let mut tasks = Vec::new();
    for _ in 0..job.callers {
        let stream = UnixStream::connect(socket(&job.directory)).await?;
        let request = Arc::clone(&request);
        tasks.push(tokio::spawn(calls(stream, request, begun + turn)));
    }
    let mut outcome = Outcome::default();
    for task in tasks {
        let (operations, laps) = task.await??;
        outcome.operations += operations;
        outcome.laps.add_laps(&laps);
    }
    outcome.seconds = begun.elapsed().as_secs_f64();
    // They belong to the server's process, which is not asked.
    outcome.cpu_us = f64::NAN;
    Ok(outcome)
}

async fn calls(
    stream: UnixStream,
    request: Arc<str>,
    until: Instant,
) -> anyhow::Result<(u64, Laps)> {
    let mut stream = BufReader::new(stream);
    let (mut laps, mut operations) = (Laps::default(), 0);
    let (mut line, mut body) = (String::new(), Vec::new());
    while begin() < until {
        let begun = begin();
        stream.get_mut().write_all(request.as_bytes()).await?;
        let mut length = 0;
        let mut first = true;
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let text = line.trim_end();
            if first {
                anyhow::ensure!(text == "HTTP/1.1 200 OK", "the plugin answered {text:?}");
            }
            first = false;
            if text.is_empty() {
                break;
            }
            if let Some(("content-length", value)) = text.split_once(": ") {
                length = value.parse()?;
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body).await?;
        anyhow::ensure!(body.starts_with(b"{\"Address\""), "not an address");
        laps.note(begun.elapsed());
        operations += 1;
    }
    Ok((operations, laps))
}
