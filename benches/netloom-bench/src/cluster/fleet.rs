//! Many worker processes that begin together.

use super::figures::{Figure, Row};
use super::job::{Job, Outcome, Place, Work, read_line, write_line};
use super::worker::prepare;
use anyhow::Context;
use netloom_core::store::Key;
use netloom_core::{StoreKind, SystemClock};
use netloom_lab::servers::{Shape, StoreServer};
use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The store that is measured, and the disk.
#[derive(Debug)]
pub(super) struct Ground {
    server: Option<StoreServer>,
    directory: TempDir,
    pub(super) runtime: tokio::runtime::Runtime,
    turn: Duration,
    rows: u32,
}

impl Ground {
    /// Starts the server, if the store has one.
    pub(super) fn new(
        store: Option<StoreKind>,
        base: PathBuf,
        turn: Duration,
    ) -> anyhow::Result<Self> {
        let server = store.map(|kind| StoreServer::start(kind, Shape::Single));
        Ok(Self {
            server: server.transpose()?,
            directory: tempfile::tempdir_in(base)?,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?,
            turn,
            rows: 0,
        })
    }

    /// Measures one row: all workers prepare, begin together and report.
    pub(super) fn measure(&mut self, row: Row) -> anyhow::Result<Figure> {
        let alone = self.server.is_none() && row.work != Work::RawWrite;
        let (processes, callers) = if alone {
            (1, row.hosts * row.callers)
        } else {
            (row.hosts, row.callers)
        };
        let jobs = self.jobs(row.work, processes, callers)?;
        let measured = self.all_at_once(jobs);
        let outcomes = measured.with_context(|| format!("in the row {row:?}"))?;
        Ok(Figure::of(row, processes, &outcomes))
    }

    /// Fresh directories, and a fresh part of the store.
    pub(super) fn jobs(
        &mut self,
        work: Work,
        hosts: usize,
        callers: usize,
    ) -> anyhow::Result<Vec<Job>> {
        self.rows += 1;
        let store = self.fresh_store(work)?;
        let job = |host| {
            let name = format!("row-{}-host-{host}", self.rows);
            let directory = self.directory.path().join(name);
            std::fs::create_dir_all(directory.join("journal"))?;
            Ok(Job {
                work,
                host,
                hosts,
                callers,
                turn_ms: u64::try_from(self.turn.as_millis())?,
                store: store.clone(),
                directory,
            })
        };
        (0..hosts).map(job).collect()
    }

    fn fresh_store(&self, work: Work) -> anyhow::Result<Place> {
        let Some(server) = &self.server else {
            return Ok(Place::File);
        };
        let mut url = server.url().url;
        url.prefix = Key::new(format!("netloom/row-{}", self.rows))?;
        let place = Place::Shared(url.to_string());
        let store = place.open(self.directory.path())?;
        self.runtime.block_on(async {
            if matches!(work, Work::Netloom { .. } | Work::PluginNetloom) {
                let ids = SystemClock::new();
                netloom_ipam::cluster_init(&*store, &ids, 0, []).await?;
            }
            prepare(work, &*store).await
        })?;
        Ok(place)
    }

    fn all_at_once(&self, jobs: Vec<Job>) -> anyhow::Result<Vec<Outcome>> {
        let mut workers = Vec::new();
        for job in jobs {
            workers.push(Worker::start(&job)?);
        }
        for worker in &mut workers {
            let _: bool = read_line(&mut worker.output)?;
        }
        for worker in &mut workers {
            worker.tell(&true)?;
        }
        workers
            .iter_mut()
            .map(|worker| read_line(&mut worker.output))
            .collect()
    }
}

/// A worker process; it ends with the value that holds it.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    pub(super) output: BufReader<ChildStdout>,
}

impl Worker {
    #[allow(
        clippy::disallowed_methods,
        reason = "the bench runs itself again, as one of many hosts"
    )]
    pub(super) fn start(job: &Job) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("cluster-worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("the output is piped")?;
        let mut worker = Self {
            input: child.stdin.take(),
            output: BufReader::new(output),
            child,
        };
        worker.tell(job)?;
        Ok(worker)
    }

    fn tell<T: serde::Serialize>(&mut self, what: &T) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("the input is piped")?;
        write_line(input, what)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
