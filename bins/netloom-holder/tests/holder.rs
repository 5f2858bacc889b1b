//! The holder with a small daemon that answers every connection with its process id.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a test may stop at any error, starts programs, and waits with a deadline"
)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where the small daemon looks for what the test wants of it.
const DIRECTORY: &str = "HOLDER_TEST_DIR";
/// Far longer than anything here takes: a hang becomes a failure.
const DEADLINE: Duration = Duration::from_secs(30);
/// In seconds: short, for tests that wait for it.
const SOON: &str = "0.7";
/// In seconds: for tests that wait for it, and before it must get a connection in.
const LATER: &str = "5";
/// In seconds: for tests in which the socket must never go.
const NEVER: &str = "1000";

fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// Waits for `done`, which is asked again and again: no time is guessed.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < DEADLINE, "it never came: {what}");
        // Others need the processor for what is waited for.
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// The daemon: `fail` makes it end at once, `slow` makes it wait before it says that it is ready.
#[test]
#[ignore = "the process that the holder starts in the other tests"]
fn the_small_daemon() {
    let Some(dir) = directory() else {
        return;
    };
    if dir.join("fail").exists() {
        std::process::exit(3);
    }
    assert_eq!(std::env::var("LISTEN_FDNAMES").unwrap(), "plugin:api");
    assert!(std::env::var_os("LISTEN_PID").is_none());
    let mut fds = listenfd::ListenFd::from_env();
    assert_eq!(fds.len(), 2);
    let sockets = [0, 1].map(|n| fds.take_unix_listener(n).unwrap().unwrap());
    until("the word to go on", || !dir.join("slow").exists());
    let notify = std::env::var_os("NOTIFY_SOCKET").unwrap();
    let ready = b"STATUS=up\nREADY=1\n";
    UnixDatagram::unbound()
        .unwrap()
        .send_to(ready, notify)
        .unwrap();
    let threads = sockets.map(|socket| {
        std::thread::spawn(move || {
            for stream in socket.incoming() {
                let _ = write!(stream.unwrap(), "{}", std::process::id());
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
}

/// The relay: leaves its process id in a file, and waits.
#[test]
#[ignore = "the process that the holder starts in the other tests"]
fn the_small_relay() {
    let Some(dir) = directory() else {
        return;
    };
    let pid = std::process::id().to_string();
    std::fs::write(dir.join("relay.new"), pid).unwrap();
    std::fs::rename(dir.join("relay.new"), dir.join("relay.pid")).unwrap();
    loop {
        std::thread::park();
    }
}

struct Setting {
    dir: tempfile::TempDir,
    holder: Option<Child>,
}

impl Setting {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            holder: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn plugin(&self) -> PathBuf {
        self.path("plugins/netloom.sock")
    }

    fn api(&self) -> PathBuf {
        self.path("run/api.sock")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netloom-holder"));
        command
            .env(DIRECTORY, self.dir.path())
            .env("LISTEN_PID", "1")
            .arg("--plugin-socket")
            .arg(self.plugin())
            .arg("--api-socket")
            .arg(self.api())
            .arg("--run-dir")
            .arg(self.path("run"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    fn start(&mut self, away_limit: &str, more: &[&str]) {
        let test = std::env::current_exe().unwrap();
        let holder = self
            .command()
            .args(["--away-limit", away_limit])
            .args(more)
            .arg("--")
            .arg(test)
            .args(["--exact", "the_small_daemon", "--ignored"])
            .stderr(Stdio::null())
            .spawn();
        self.holder = Some(holder.unwrap());
    }

    fn set(&self, flag: &str) {
        std::fs::write(self.path(flag), "").unwrap();
    }

    fn unset(&self, flag: &str) {
        std::fs::remove_file(self.path(flag)).unwrap();
    }

    /// Sends the holder a signal and waits for its end; returns its exit code.
    fn stop(&mut self, signal: Signal) -> Option<i32> {
        let mut holder = self.holder.take().unwrap();
        kill(pid_of(holder.id()), signal).unwrap();
        holder.wait().unwrap().code()
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if self.holder.is_some() {
            self.stop(Signal::SIGTERM);
        }
    }
}

fn pid_of(id: u32) -> Pid {
    Pid::from_raw(id.try_into().unwrap())
}

/// Asks the daemon for its process id.
fn ask(path: &Path) -> std::io::Result<u32> {
    answer(UnixStream::connect(path)?)
}

fn answer(mut stream: UnixStream) -> std::io::Result<u32> {
    let mut text = String::new();
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.read_to_string(&mut text)?;
    text.parse().map_err(std::io::Error::other)
}

/// Asks until there is an answer: for the time before the first one.
fn ask_patiently(path: &Path) -> u32 {
    let mut answered = 0;
    until("an answer", || {
        answered = ask(path).unwrap_or(0);
        answered > 0
    });
    answered
}

fn is_running(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The state follows the name, which stands in parentheses.
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    // The first thread may be gone while another is still in `accept`, and takes a call into the
    // grave: only when none is left do the sockets belong to the next instance alone.
    let others = std::fs::read_dir(format!("/proc/{id}/task")).map_or(0, Iterator::count) > 1;
    others || !matches!(state, None | Some('Z' | 'X'))
}

fn kill_hard(id: u32) {
    kill(pid_of(id), Signal::SIGKILL).unwrap();
    until("the end of the daemon", || !is_running(id));
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn the_daemon_gets_both_sockets_which_only_root_and_the_group_may_use() {
    let mut setting = Setting::new();
    setting.start(NEVER, &[]);
    let id = ask_patiently(&setting.plugin());
    assert_eq!(ask(&setting.api()).unwrap(), id);
    assert_eq!(
        (mode(&setting.plugin()), mode(&setting.api())),
        (0o660, 0o660)
    );
    assert_eq!(mode(&setting.path("run/holder-notify.sock")), 0o600);
    // dockerd takes every socket in its directory for a plugin.
    let beside = std::fs::read_dir(setting.path("plugins")).unwrap();
    let names: Vec<_> = beside.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(setting.path("plugins/.netloom-holder").is_dir());
}

#[test]
fn a_call_made_while_the_daemon_is_dead_is_answered_by_the_next_instance() {
    let mut setting = Setting::new();
    setting.start(NEVER, &[]);
    let mut last = ask_patiently(&setting.plugin());
    for _ in 0..3 {
        kill_hard(last);
        // The connection itself does not wait: the socket was never closed.
        let calls =
            [setting.plugin(), setting.api()].map(|path| UnixStream::connect(path).unwrap());
        for call in calls {
            let next = answer(call).unwrap();
            assert_ne!(next, last);
        }
        last = ask(&setting.plugin()).unwrap();
    }
}

#[test]
fn the_socket_of_a_daemon_that_stays_away_goes_and_comes_back_with_it() {
    let mut setting = Setting::new();
    setting.start(LATER, &[]);
    let first = ask_patiently(&setting.plugin());
    setting.set("fail");
    kill_hard(first);
    let waiting = UnixStream::connect(setting.plugin()).unwrap();
    until("the end of the socket", || !setting.plugin().exists());
    // Who waited is told, instead of hanging for ever: dockerd has no time limit of its own.
    assert!(answer(waiting).is_err());
    assert!(
        setting.api().exists(),
        "the local API may wait: its clients have time limits"
    );
    setting.unset("fail");
    until("the socket", || setting.plugin().exists());
    let second = ask(&setting.plugin()).unwrap();
    assert_ne!(first, second);
    assert_eq!(mode(&setting.plugin()), 0o660);
}

#[test]
fn a_daemon_that_is_slow_to_start_is_reached_as_soon_as_it_is_ready() {
    let mut setting = Setting::new();
    setting.set("slow");
    setting.start(LATER, &[]);
    until("the socket", || setting.plugin().exists());
    let early = UnixStream::connect(setting.plugin()).unwrap();
    until("the socket is hidden", || !setting.plugin().exists());
    setting.unset("slow");
    until("the socket", || setting.plugin().exists());
    // The daemon kept its socket: even the early call is answered, by the same instance.
    assert_eq!(answer(early).unwrap(), ask(&setting.plugin()).unwrap());
}

#[test]
fn a_daemon_killed_before_it_was_ready_leaves_nobody_waiting() {
    let mut setting = Setting::new();
    setting.start(LATER, &[]);
    let first = ask_patiently(&setting.plugin());
    setting.set("slow");
    kill_hard(first);
    let waiting = UnixStream::connect(setting.plugin()).unwrap();
    until("the socket is hidden", || !setting.plugin().exists());
    let slow = daemon_of(&setting);
    setting.set("fail");
    kill_hard(slow);
    assert!(answer(waiting).is_err());
    setting.unset("fail");
    setting.unset("slow");
    ask_patiently(&setting.plugin());
}

/// The running daemon, found by its parent.
fn daemon_of(setting: &Setting) -> u32 {
    let holder = setting.holder.as_ref().unwrap().id();
    let mut found = None;
    until("a daemon", || {
        let children = format!("/proc/{holder}/task/{holder}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        found = children
            .split_whitespace()
            .next()
            .map(|id| id.parse().unwrap());
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_clean_stop_leaves_nothing() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let mut setting = Setting::new();
        setting.start(NEVER, &[]);
        let daemon = ask_patiently(&setting.plugin());
        assert_eq!(setting.stop(signal), Some(0), "{signal}");
        assert!(!is_running(daemon), "{signal}: the daemon still runs");
        assert!(!setting.plugin().exists() && !setting.api().exists());
        for directory in ["plugins", "run"] {
            let left: Vec<_> = std::fs::read_dir(setting.path(directory))
                .unwrap()
                .collect();
            assert!(left.is_empty(), "{signal}: {left:?}");
        }
    }
}

#[test]
fn the_relay_is_started_and_started_again() {
    let mut setting = Setting::new();
    let relay = setting.path("relay");
    let test = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\nexec {} --exact the_small_relay --ignored\n",
        test.display()
    );
    std::fs::write(&relay, script).unwrap();
    std::fs::set_permissions(&relay, std::fs::Permissions::from_mode(0o755)).unwrap();
    setting.start(NEVER, &["--relay", relay.to_str().unwrap()]);
    let daemon = ask_patiently(&setting.plugin());
    let pid_file = setting.path("relay.pid");
    let mut seen = Vec::new();
    for _ in 0..2 {
        until("a relay", || pid_file.exists());
        let id: u32 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
        assert!(!seen.contains(&id));
        seen.push(id);
        std::fs::remove_file(&pid_file).unwrap();
        kill_hard(id);
    }
    until("a relay", || pid_file.exists());
    let last = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert_eq!(
        ask(&setting.plugin()).unwrap(),
        daemon,
        "the daemon was left alone"
    );
    setting.stop(Signal::SIGTERM);
    assert!(!is_running(last), "the relay outlived a clean stop");
}

#[test]
fn a_live_socket_is_not_taken_away_and_a_stale_one_is() {
    let mut setting = Setting::new();
    std::fs::create_dir_all(setting.path("plugins")).unwrap();
    let live = UnixListener::bind(setting.plugin()).unwrap();
    let refused = setting.command().args(["--", "true"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("another process answers at"), "{said}");
    assert!(setting.plugin().exists());
    drop(live);
    setting.start(NEVER, &[]);
    ask_patiently(&setting.plugin());
}

#[test]
fn a_daemon_that_does_not_exist_is_named_and_tried_again() {
    let mut setting = Setting::new();
    let mut holder = setting
        .command()
        .args(["--away-limit", SOON, "--", "/nonexistent/netloomd"])
        .spawn()
        .unwrap();
    let mut output = holder.stderr.take().unwrap();
    setting.holder = Some(holder);
    let mut said = String::new();
    until("the second try", || {
        let mut bytes = [0; 1000];
        let length = output.read(&mut bytes).unwrap();
        said.push_str(&String::from_utf8_lossy(&bytes[..length]));
        said.matches("/nonexistent/netloomd cannot be started")
            .count()
            > 1
    });
    until("the end of the socket", || !setting.plugin().exists());
    assert_eq!(setting.stop(Signal::SIGTERM), Some(0));
}

#[test]
fn without_notification_a_started_daemon_counts_as_back() {
    let mut setting = Setting::new();
    let mut holder = setting
        .command()
        .args([
            "--away-limit",
            SOON,
            "--ready",
            "started",
            "--",
            "sh",
            "-c",
            "exec cat > /dev/null",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // It ends with its input: as long as that is open, the socket stays.
    let input = holder.stdin.take();
    setting.holder = Some(holder);
    // Before it is started, it is away, and a busy machine may be slow to start it.
    daemon_of(&setting);
    until("the socket", || setting.plugin().exists());
    let start = Instant::now();
    until("twice the limit", || {
        assert!(setting.plugin().exists());
        start.elapsed() > Duration::from_millis(1500)
    });
    drop(input);
}
