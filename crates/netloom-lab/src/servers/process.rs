//! Programs that end with this process, however it ends.

use std::io;
use std::process::{Child, Command};
use std::sync::{OnceLock, mpsc};

use anyhow::{Context, Result};

struct Job {
    command: Command,
    reply: mpsc::Sender<io::Result<Child>>,
}

/// The thread that starts everything. The kernel sends the signal of the parent's death when the
/// *thread* that started a program ends; the threads of tests and runtimes end sooner than wanted.
static STARTER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();

/// Starts a program. The command is expected to run `setpriv --pdeathsig KILL`.
pub(super) fn spawn(command: Command) -> Result<Child> {
    let shown = format!("{:?}", command.get_program());
    let starter = STARTER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for mut job in jobs {
                // Whoever asked may be gone; then its program goes too.
                if let Err(mpsc::SendError(Ok(mut child))) = job.reply.send(job.command.spawn()) {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        sender
    });
    let (reply, answer) = mpsc::channel();
    starter
        .send(Job { command, reply })
        .ok()
        .context("the thread that starts servers is gone")?;
    answer
        .recv()?
        .with_context(|| format!("could not start {shown}"))
}
