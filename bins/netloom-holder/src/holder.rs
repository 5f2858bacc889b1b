//! The loop: what happened, what to do about it, when to look again.

use crate::child::{Child, Program};
use crate::door::{Alive, Door, Step};
use crate::notify::{Notifications, Word};
use crate::pulse::{Pulse, SILENCE_MAX};
use crate::sockets::{PluginSocket, Socket, make_directory};
use crate::{Arguments, Ready, say};
use anyhow::Context;
use netloom_core::{Clock, SystemClock};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// After this, programs that were told to stop are killed: the daemon's calls have deadlines of a
/// few seconds, so more means that it hangs.
const STOP_MAX: Duration = Duration::from_secs(10);

/// What one run of the holder owns.
#[derive(Debug)]
struct Holder {
    clock: SystemClock,
    ready: Ready,
    plugin: PluginSocket,
    api: Socket,
    notifications: Notifications,
    door: Door,
    pulse: Pulse,
    daemon: Child,
    relay: Option<Child>,
    phase: Phase,
}

/// Whether programs are kept running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// They are.
    Holding,
    /// They were told to stop at this time. Follows `Holding`; nothing follows.
    Stopping { since: Duration },
}

/// Holds the sockets until a signal says stop.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    // Before anything else, so that no child's end is missed.
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ] {
        signals.add(signal);
    }
    signals.thread_block().context("blocking signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("making a descriptor for signals")?;
    let mut holder = Holder::open(arguments)?;
    while holder.has_work() {
        holder.act();
        holder.wait(&signals)?;
        while let Some(signal) = signals.read_signal().context("reading a signal")? {
            match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
                Ok(Ok(Signal::SIGCHLD)) => holder.reap(),
                Ok(Ok(signal)) => holder.stop(signal),
                // The descriptor was made for known signals only.
                _ => {}
            }
        }
        holder.listen();
    }
    Ok(())
}

impl Holder {
    fn open(arguments: Arguments) -> anyhow::Result<Self> {
        let clock = SystemClock::new();
        let plugin = PluginSocket::open(&arguments.plugin_socket)?;
        make_directory(
            arguments.api_socket.parent().unwrap_or(Path::new(".")),
            0o755,
        )?;
        let api = Socket::bind(&arguments.api_socket)?;
        if let Some(group) = &arguments.api_group {
            api.give_to_group(group)?;
        }
        let notifications = Notifications::open(&arguments.run_dir)?;
        let silence = SILENCE_MAX.as_micros().to_string();
        let daemon = Program::new(
            &arguments.daemon,
            &[
                ("WATCHDOG_USEC", OsStr::new(&silence)),
                // No LISTEN_PID: the id is not known before the process runs, and the convention's
                // readers (listenfd) take its absence for consent.
                ("LISTEN_FDS", OsStr::new("2")),
                ("LISTEN_FDNAMES", OsStr::new("plugin:api")),
                ("NOTIFY_SOCKET", notifications.path().as_os_str()),
            ],
        )?;
        let relay = arguments
            .relay
            .map(|path| Program::new(&[path.into_os_string()], &[]))
            .transpose()?;
        Ok(Self {
            door: Door::new(clock.monotonic(), arguments.away_limit),
            clock,
            ready: arguments.ready,
            pulse: Pulse::Unwatched,
            plugin,
            api,
            notifications,
            daemon: Child::new(daemon),
            relay: relay.map(Child::new),
            phase: Phase::Holding,
        })
    }

    fn children(&self) -> impl Iterator<Item = &Child> {
        std::iter::once(&self.daemon).chain(&self.relay)
    }

    fn children_mut(&mut self) -> impl Iterator<Item = &mut Child> {
        std::iter::once(&mut self.daemon).chain(&mut self.relay)
    }

    fn has_work(&self) -> bool {
        self.phase == Phase::Holding || self.children().any(|child| child.pid().is_some())
    }

    fn alive(&self) -> Alive {
        match self.daemon.pid() {
            Some(_) => Alive::Yes,
            None => Alive::No,
        }
    }

    /// Does what is due.
    fn act(&mut self) {
        let now = self.clock.monotonic();
        if let Phase::Stopping { since } = self.phase {
            if now >= since + STOP_MAX {
                self.signal_all(Signal::SIGKILL);
            }
            return;
        }
        let step = self.door.passed(now, self.alive());
        if step.is_some() {
            say("the daemon is not back; the plugin's socket is closed until it is");
        }
        self.carry_out(step);
        if self.pulse.deadline().is_some_and(|at| at <= now) {
            say("the daemon hangs; ending it");
            self.daemon.signal(Signal::SIGKILL);
            self.pulse = Pulse::Unwatched;
        }
        let due = |child: &Child| child.start_at().is_some_and(|at| at <= now);
        if due(&self.daemon) {
            self.start_daemon(now);
        }
        if let Some(relay) = &mut self.relay
            && due(relay)
        {
            let started = relay.start(now, &[]);
            if let Err(how) = started {
                relay.died(now, &how);
            }
        }
    }

    fn start_daemon(&mut self, now: Duration) {
        let step = self.door.starting();
        self.carry_out(step);
        let started = match self.plugin.socket() {
            Some(plugin) => self.daemon.start(now, &[plugin.as_fd(), self.api.as_fd()]),
            None => Err("has no socket to listen on".to_owned()),
        };
        match (started, self.ready) {
            (Err(how), _) => self.daemon_died(now, &how),
            (Ok(()), Ready::Started) => {
                let step = self.door.ready();
                self.carry_out(step);
            }
            (Ok(()), Ready::Notify) => self.pulse = Pulse::Starting { since: now },
        }
    }

    fn carry_out(&mut self, step: Option<Step>) {
        let done = match step {
            None => Ok(()),
            Some(Step::Make) => self.plugin.make(),
            Some(Step::Publish) => {
                say("the daemon is back; the plugin's socket is open again");
                self.plugin.publish()
            }
            Some(Step::Park) => self.plugin.park(),
            Some(Step::Discard) => {
                self.plugin.discard();
                Ok(())
            }
        };
        if let Err(error) = done {
            // A running daemon listens at what nobody reaches: it gets a new one by a restart.
            say(&format!("{error:#}; trying again with a new socket"));
            self.door.lost(self.clock.monotonic());
            self.plugin.discard();
            self.daemon.signal(Signal::SIGTERM);
        }
    }

    fn daemon_died(&mut self, now: Duration, how: &str) {
        // What the dead instance said of itself is not true of the next one.
        self.notifications.take();
        self.pulse = Pulse::Unwatched;
        self.daemon.died(now, how);
        let step = self.door.died(now);
        self.carry_out(step);
    }

    /// Notes which programs ended. All children are asked for, since orphans end here too where
    /// this is the first process of a container.
    fn reap(&mut self) {
        loop {
            let status = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(status) => status,
            };
            let how = match status {
                WaitStatus::Exited(_, code) => format!("ended with code {code}"),
                WaitStatus::Signaled(_, signal, _) => format!("was ended by {signal}"),
                _ => continue,
            };
            let now = self.clock.monotonic();
            let pid = status.pid();
            if self.phase != Phase::Holding {
                self.children_mut()
                    .filter(|child| child.pid() == pid)
                    .for_each(Child::stopped);
            } else if pid == self.daemon.pid() {
                self.daemon_died(now, &how);
            } else if let Some(relay) = &mut self.relay
                && pid == relay.pid()
            {
                relay.died(now, &how);
            }
        }
    }

    /// Hears what the daemon says.
    fn listen(&mut self) {
        for word in self.notifications.take() {
            if self.phase != Phase::Holding || self.daemon.pid().is_none() {
                continue;
            }
            match word {
                Word::Alive => {
                    let last = self.clock.monotonic();
                    self.pulse = Pulse::Beating { last };
                }
                Word::Ready => {
                    self.pulse.ready();
                    let step = self.door.ready();
                    self.carry_out(step);
                }
            }
        }
    }

    /// Stops everything; told a second time, at once.
    fn stop(&mut self, signal: Signal) {
        match self.phase {
            Phase::Holding => {
                let since = self.clock.monotonic();
                self.phase = Phase::Stopping { since };
                // First the socket, so that dockerd's next call fails at once; the calls that the
                // daemon has accepted are its own to finish.
                self.plugin.discard();
                self.signal_all(signal);
            }
            Phase::Stopping { .. } => self.signal_all(Signal::SIGKILL),
        }
    }

    fn signal_all(&self, signal: Signal) {
        for child in self.children() {
            child.signal(signal);
        }
    }

    /// Waits for a signal, a notification, or the next thing that is due.
    fn wait(&self, signals: &SignalFd) -> anyhow::Result<()> {
        let starts = self.children().filter_map(Child::start_at);
        let next = match self.phase {
            Phase::Holding => {
                let deadlines = self
                    .door
                    .deadline()
                    .into_iter()
                    .chain(self.pulse.deadline());
                starts.chain(deadlines).min()
            }
            Phase::Stopping { since } if self.has_work() => Some(since + STOP_MAX),
            Phase::Stopping { .. } => Some(Duration::ZERO),
        };
        let timeout = next.map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_sub(self.clock.monotonic());
            // Rounded up, or the last millisecond would be spent in a busy loop.
            let millis = left.as_millis() + u128::from(!left.is_zero());
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.notifications.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("waiting for events"),
        }
    }
}
