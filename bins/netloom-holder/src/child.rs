//! A program that is started, watched and started again.

use crate::backoff::Backoff;
use crate::say;
use anyhow::Context;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// The first descriptor of systemd's convention (SD_LISTEN_FDS_START).
const FIRST_FD: RawFd = 3;
/// Descriptors are put aside from here while they are sorted: above what this process ever has
/// open, below the usual limit of 1,024.
const ASIDE_FD: RawFd = 900;

/// What to start.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    /// The program `words[0]` with its arguments, the variables of this process, and `extra` ones.
    pub(crate) fn new(words: &[OsString], extra: &[(&str, &OsStr)]) -> anyhow::Result<Self> {
        let first = words.first().context("no program was named")?;
        let name = first.to_string_lossy().into_owned();
        let text = |bytes: &[u8]| {
            CString::new(bytes).with_context(|| format!("an argument of {name} holds a zero byte"))
        };
        let arguments: Result<_, _> = words.iter().map(|word| text(word.as_bytes())).collect();
        let inherited = std::env::vars_os().filter(|(name, _)| {
            // Another manager's sockets, if any, were for this process and not for its children.
            let name = name.as_bytes();
            let managers = [&b"LISTEN_"[..], b"NOTIFY_SOCKET", b"WATCHDOG_"];
            !managers.iter().any(|its| name.starts_with(its))
        });
        let extra = extra
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let environment: Result<_, _> = inherited
            .chain(extra)
            .map(|(name, value): (OsString, OsString)| {
                text(&[name.as_bytes(), b"=", value.as_bytes()].concat())
            })
            .collect();
        Ok(Self {
            arguments: arguments?,
            environment: environment?,
            name,
        })
    }

    /// Starts it with `fds` as its descriptors 3 and up.
    fn start(&self, fds: &[BorrowedFd<'_>]) -> nix::Result<Pid> {
        let mut actions = PosixSpawnFileActions::init()?;
        // By way of high numbers, because a descriptor may stand where another one must go. All
        // others of this process are closed by the exec, as Rust opens them so.
        for (fd, aside) in fds.iter().zip(ASIDE_FD..) {
            actions.add_dup2(fd.as_raw_fd(), aside)?;
        }
        for ((_, aside), target) in fds.iter().zip(ASIDE_FD..).zip(FIRST_FD..) {
            actions.add_dup2(aside, target)?;
            actions.add_close(aside)?;
        }
        // This process blocks its signals to read them from a descriptor, and ignores SIGPIPE.
        let mut attributes = PosixSpawnAttr::init()?;
        let mut defaults = SigSet::empty();
        defaults.add(Signal::SIGPIPE);
        attributes.set_sigdefault(&defaults)?;
        attributes.set_sigmask(&SigSet::empty())?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
        )?;
        let path = self.arguments.first().ok_or(nix::errno::Errno::EINVAL)?;
        posix_spawnp(
            path,
            &actions,
            &attributes,
            &self.arguments,
            &self.environment,
        )
    }
}

/// A program's life.
#[derive(Debug)]
enum State {
    /// It runs. Follows `Waiting`.
    Running { pid: Pid, since: Duration },
    /// It is to be started at this time. Follows `Running`, and itself when a start fails.
    Waiting { until: Duration },
    /// It was told to stop, and did. Follows `Running`; nothing follows.
    Stopped,
}

/// A program that should always run.
#[derive(Debug)]
pub(crate) struct Child {
    program: Program,
    state: State,
    backoff: Backoff,
}

impl Child {
    /// A program that is to be started at once.
    pub(crate) fn new(program: Program) -> Self {
        Self {
            program,
            state: State::Waiting {
                until: Duration::ZERO,
            },
            backoff: Backoff::default(),
        }
    }

    /// Its process, while it runs.
    pub(crate) fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            State::Waiting { .. } | State::Stopped => None,
        }
    }

    /// When it is to be started, while it does not run.
    pub(crate) fn start_at(&self) -> Option<Duration> {
        match self.state {
            State::Running { .. } | State::Stopped => None,
            State::Waiting { until } => Some(until),
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// What to say of the failure, and to [`died`](Self::died): the program may be installed any
    /// moment, so that is a death like others.
    pub(crate) fn start(&mut self, now: Duration, fds: &[BorrowedFd<'_>]) -> Result<(), String> {
        let pid = self.program.start(fds);
        let pid = pid.map_err(|error| format!("cannot be started ({error})"))?;
        self.state = State::Running { pid, since: now };
        Ok(())
    }

    /// Notes that it ended, or did not start, and `how`.
    pub(crate) fn died(&mut self, now: Duration, how: &str) {
        let ran = match self.state {
            State::Running { since, .. } => now.saturating_sub(since),
            State::Waiting { .. } | State::Stopped => Duration::ZERO,
        };
        let pause = self.backoff.died(ran);
        self.state = State::Waiting { until: now + pause };
        let name = &self.program.name;
        let when = match pause {
            Duration::ZERO => "at once".to_owned(),
            pause => format!("in {pause:?}"),
        };
        say(&format!("{name} {how}; starting it again {when}"));
    }

    /// Notes that it ended as it was told to, and is not to be started again.
    pub(crate) fn stopped(&mut self) {
        self.state = State::Stopped;
    }

    /// Sends it a signal, if it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // It may have ended just now; then its end is reported next.
            let _ = kill(pid, signal);
        }
    }
}
