//! Faults: what becomes of servers, of the ways to them, and of hosts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use netloom_lab::proxy::Mode;
use nix::sys::signal::Signal;

use super::clock::Random;
use super::site::{Load, Site};
use super::walls::Dropped;

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A host's process is killed, and started again.
    HostKilled,
    /// A host's process is frozen.
    HostFrozen,
    /// A server is killed, and started again.
    ServerKilled,
    /// The server that leads is killed, and started again.
    LeaderKilled,
    /// A server is frozen, for longer than any lease lasts.
    ServerFrozen,
    /// All servers end at once, and start again after a while.
    Outage,
    /// All connections of a host end.
    Cut,
    /// A host's next words to the store end the connection and do not arrive.
    CutBefore,
    /// The answer to a host's next words ends the connection and does not arrive.
    CutAfter,
    /// A host's words arrive, and answers do not.
    HalfOpen,
    /// A host's words do not arrive.
    BlackHole,
    /// A host is parted from all servers; connections stay, and nothing is lost.
    Partition,
    /// A host is parted from all servers; connections are refused.
    Refused,
    /// All that a host says and hears is late.
    Delay,
    /// The kernel drops all packets between a host and all servers.
    PacketsDropped,
    /// The kernel drops the packets that come to a host from all servers.
    AnswersDropped,
}

/// How many faults of each kind there were.
pub type Faults = BTreeMap<Fault, u64>;

/// Weights: cheap ones come more often.
const WAYS: [Fault; 10] = [
    Fault::Cut,
    Fault::CutBefore,
    Fault::CutAfter,
    Fault::HalfOpen,
    Fault::BlackHole,
    Fault::Partition,
    Fault::Refused,
    Fault::Delay,
    Fault::PacketsDropped,
    Fault::AnswersDropped,
];
const SERVERS: [Fault; 4] = [
    Fault::ServerKilled,
    Fault::LeaderKilled,
    Fault::ServerFrozen,
    Fault::Outage,
];

/// A fault that lasts.
struct Lasting {
    until: Instant,
    undo: Undo,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Undo {
    StartHost(usize),
    WakeHost(usize),
    Way(usize),
    Wall(usize),
    StartServers,
    WakeServer(usize),
}

/// Makes trouble, and ends it again.
pub(super) struct Trouble {
    random: Random,
    lasting: Vec<Lasting>,
    pub(super) faults: Faults,
}

impl Trouble {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            lasting: Vec::new(),
            faults: Faults::new(),
        }
    }

    /// Ends what is over, and begins something new if little is going on. Rough times and calm ones
    /// take turns: what a fault leaves behind shows when nothing else is wrong, and most calls are
    /// answered then.
    pub(super) fn step(&mut self, site: &mut Site, since: Duration) -> Result<()> {
        let now = Instant::now();
        let mut place = 0;
        while let Some(lasting) = self.lasting.get(place) {
            if lasting.until <= now {
                let undo = self.lasting.swap_remove(place).undo;
                end(site, undo)?;
            } else {
                place += 1;
            }
        }
        let is_calm = (since.as_secs() / TURN.as_secs()) % 2 == 1;
        let lively = match site.servers {
            Some(_) => !is_calm,
            // A host alone is killed only; it shall come to something between its deaths.
            None => self.random.percent(10),
        };
        if self.lasting.len() < LASTING_MAX && lively {
            self.begin(site)?;
        }
        Ok(())
    }

    /// Ends all of it.
    pub(super) fn end(&mut self, site: &mut Site) -> Result<()> {
        for lasting in std::mem::take(&mut self.lasting) {
            end(site, lasting.undo)?;
        }
        Ok(())
    }

    fn fault(&mut self, site: &Site) -> Fault {
        if site.servers.is_none() {
            return Fault::HostKilled;
        }
        let among = |random: &mut Random, faults: &[Fault]| {
            let fault = faults.get(random.place(faults.len()));
            *fault.expect("a place lies below the length")
        };
        match self.random.between(0, 100) {
            0..18 => Fault::HostKilled,
            18..28 => Fault::HostFrozen,
            28..40 => among(&mut self.random, &SERVERS),
            _ => among(&mut self.random, &WAYS),
        }
    }

    fn begin(&mut self, site: &mut Site) -> Result<()> {
        let fault = self.fault(site);
        let host = self.random.place(site.hosts.len());
        let Some((undo, shortest, longest)) = self.inject(site, fault, host)? else {
            return Ok(());
        };
        *self.faults.entry(fault).or_default() += 1;
        let millis = self.random.between(shortest, longest);
        self.lasting.push(Lasting {
            until: Instant::now() + Duration::from_millis(millis),
            undo,
        });
        Ok(())
    }

    /// Does it; how it is undone, and after how many milliseconds. None: not now.
    fn inject(
        &mut self,
        site: &mut Site,
        fault: Fault,
        host: usize,
    ) -> Result<Option<(Undo, u64, u64)>> {
        let busy = |undo: Undo| self.lasting.iter().any(|lasting| lasting.undo == undo);
        let host_busy =
            busy(Undo::StartHost(host)) || busy(Undo::WakeHost(host)) || !site.is_ready(host);
        Ok(match fault {
            Fault::HostKilled | Fault::HostFrozen if host_busy => None,
            Fault::HostKilled => {
                site.kill_host(host)?;
                Some((Undo::StartHost(host), 50, 1_500))
            }
            Fault::HostFrozen => {
                site.signal_host(host, Signal::SIGSTOP)?;
                Some((Undo::WakeHost(host), 500, 8_000))
            }
            Fault::ServerKilled | Fault::LeaderKilled | Fault::ServerFrozen | Fault::Outage => {
                let server = |lasting: &Lasting| {
                    matches!(lasting.undo, Undo::StartServers | Undo::WakeServer(_))
                };
                if self.lasting.iter().any(server) {
                    return Ok(None);
                }
                self.trouble_servers(site, fault)?
            }
            _ if busy(Undo::Way(host)) || busy(Undo::Wall(host)) => None,
            Fault::PacketsDropped | Fault::AnswersDropped => raise_wall(site, fault, host)?,
            way => Some(trouble_way(site, way, host)),
        })
    }

    fn trouble_servers(
        &mut self,
        site: &mut Site,
        fault: Fault,
    ) -> Result<Option<(Undo, u64, u64)>> {
        let Some(servers) = &mut site.servers else {
            return Ok(None);
        };
        let member = match fault {
            Fault::LeaderKilled => servers.leader()?,
            _ => self.random.place(servers.members()),
        };
        Ok(Some(match fault {
            Fault::Outage => {
                servers.stop_all()?;
                (Undo::StartServers, 500, 4_000)
            }
            Fault::ServerFrozen => {
                servers.pause(member)?;
                (Undo::WakeServer(member), 2_000, 16_000)
            }
            _ => {
                servers.kill(member)?;
                (Undo::StartServers, 200, 2_500)
            }
        }))
    }
}

fn raise_wall(site: &Site, fault: Fault, host: usize) -> Result<Option<(Undo, u64, u64)>> {
    let Some(walls) = &site.args.walls else {
        return Ok(None);
    };
    let dropped = if fault == Fault::AnswersDropped {
        Dropped::Answers
    } else {
        Dropped::All
    };
    walls.raise(dropped, &site.ports_of(host))?;
    // Also longer than clients wait for signs of life.
    Ok(Some((Undo::Wall(host), 500, 16_000)))
}

fn trouble_way(site: &Site, fault: Fault, host: usize) -> (Undo, u64, u64) {
    let proxies = site.proxies.get(host).map_or(&[][..], Vec::as_slice);
    let mode = match fault {
        Fault::HalfOpen => Mode::HalfOpen,
        Fault::BlackHole => Mode::BlackHole,
        Fault::Partition => Mode::Stall,
        Fault::Refused => Mode::Refuse,
        Fault::Delay => Mode::Delay {
            least: Duration::from_millis(5),
            jitter: Duration::from_millis(60),
        },
        Fault::CutBefore => Mode::CutBefore,
        Fault::CutAfter => Mode::CutAfter,
        _ => Mode::Pass,
    };
    for proxy in proxies {
        match fault {
            Fault::Cut => proxy.cut(),
            Fault::CutBefore | Fault::CutAfter => proxy.once(mode),
            _ => proxy.set(mode),
        }
    }
    let (shortest, longest) = match fault {
        Fault::Cut | Fault::CutBefore | Fault::CutAfter => (200, 600),
        _ => (300, 4_000),
    };
    (Undo::Way(host), shortest, longest)
}

fn end(site: &mut Site, undo: Undo) -> Result<()> {
    match undo {
        Undo::StartHost(host) => site.start(host, Load::Full)?,
        Undo::WakeHost(host) => site.signal_host(host, Signal::SIGCONT)?,
        Undo::Way(host) => {
            for proxy in site.proxies.get(host).into_iter().flatten() {
                proxy.set(Mode::Pass);
            }
        }
        Undo::Wall(host) => {
            if let Some(walls) = &site.args.walls {
                walls.raze(&site.ports_of(host))?;
            }
        }
        Undo::StartServers => {
            if let Some(servers) = &mut site.servers {
                servers.start_all()?;
            }
        }
        Undo::WakeServer(member) => {
            if let Some(servers) = &site.servers {
                servers.resume(member)?;
            }
        }
    }
    Ok(())
}

/// Faults at one time.
const LASTING_MAX: usize = 2;
/// How long a rough time lasts, and a calm one.
const TURN: Duration = Duration::from_secs(20);
