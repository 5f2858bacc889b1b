//! What goes wrong, drawn from the seed.

use super::disk::Trouble;
use super::host::Host;
use super::link::Weather;
use super::random::Random;
use super::run::{Kind, Sim};
use netloom_core::{ClusterAdmin, Standing};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Brings trouble over the hosts until `count` faults happened.
pub(crate) async fn chaos(sim: Arc<Sim>, mut random: Random, count: u32) {
    let special = match sim.kind {
        Kind::Plain => None,
        _ => Some(random.below(u64::from(count))),
    };
    let moves: Vec<_> = sim
        .loners()
        .map(|loner| (random.below(u64::from(count)), loner))
        .collect();
    for n in 0..count {
        sleep(random.millis(50, 3000)).await;
        for (_, loner) in moves.iter().filter(|(at, _)| *at == u64::from(n)) {
            let (sim, loner) = (Arc::clone(&sim), *loner);
            later(random.millis(0, 1500), move || sim.move_over(loner));
        }
        if special == Some(u64::from(n)) {
            sim.special(&mut random).await;
        } else {
            sim.fault(&mut random);
        }
    }
}

/// Undoes something later.
fn later(after: Duration, undo: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        sleep(after).await;
        undo();
    });
}

impl Sim {
    /// The one thing of this run that is more than weather.
    async fn special(&self, random: &mut Random) {
        match self.kind {
            Kind::Plain => {}
            Kind::Forgetting => self.lose_machine(random).await,
            Kind::Rollback => self.roll_back(random, true).await,
            Kind::BlindRollback => self.roll_back(random, false).await,
            Kind::Wipe => self.wipe(random).await,
            Kind::Twin => self.twin(),
        }
    }

    fn fault(&self, random: &mut Random) {
        let place = random.place(self.hosts.len());
        let host = self.host(place);
        if host.is_destroyed() {
            return self.store_fault(random);
        }
        match random.below(100) {
            0..15 => {
                self.world.fault("kill", Some(place), "");
                host.kill();
                self.start_later(host, random);
            }
            15..30 => {
                self.world.fault("power cut", Some(place), "");
                host.cut_power();
                self.start_later(host, random);
            }
            30..42 => self.pause(place, random),
            42..54 => {
                let refuses = random.chance(400);
                self.world.fault("partition", Some(place), "");
                host.link.change(|weather| {
                    weather.cut = true;
                    weather.refuses = refuses;
                });
                self.calm_later(host, random.millis(100, 9000));
            }
            54..72 => self.bad_weather(place, random),
            72..78 => self.clock_jump(place, random),
            78..83 => {
                self.world.fault("disk full", Some(place), "");
                host.disk.set_trouble(Trouble::Full);
                let host = Arc::clone(host);
                let undo = move || host.disk.set_trouble(Trouble::None);
                later(random.millis(100, 4000), undo);
            }
            83..88 => {
                self.world.fault("sync error", Some(place), "");
                host.disk.set_trouble(Trouble::NextSync);
                // A journal that failed stays failed: the supervisor starts another process.
                let restarts = Arc::clone(host);
                let failed = host.gate();
                let undo = move || {
                    restarts.disk.set_trouble(Trouble::None);
                    let now = restarts.gate();
                    let same = now.zip(failed).is_some_and(|(a, b)| Arc::ptr_eq(&a, &b));
                    // One that was started since is not the supervisor's business.
                    if same {
                        restarts.kill();
                        restarts.start();
                    }
                };
                later(random.millis(500, 4000), undo);
            }
            _ => self.store_fault(random),
        }
    }

    fn store_fault(&self, random: &mut Random) {
        if random.chance(500) {
            self.world.fault("watches lost", None, "");
            return self.ground.break_watches();
        }
        self.world.fault("store away", None, "");
        let refuses = random.chance(500);
        for host in &self.hosts {
            host.link.set_outage(true);
            host.link.change(|weather| weather.refuses = refuses);
        }
        let hosts = self.hosts.clone();
        let undo = move || hosts.iter().for_each(|host| host.link.set_outage(false));
        later(random.millis(200, 8000), undo);
    }

    fn start_later(&self, host: &Arc<Host>, random: &mut Random) {
        let host = Arc::clone(host);
        later(random.millis(0, 5000), move || host.start());
    }

    fn calm_later(&self, host: &Arc<Host>, after: Duration) {
        let host = Arc::clone(host);
        later(after, move || host.link.clear());
    }

    fn pause(&self, place: usize, random: &mut Random) {
        let Some(gate) = self.host(place).gate() else {
            return self.store_fault(random);
        };
        self.world.fault("pause", Some(place), "");
        gate.pause();
        later(random.millis(20, 15_000), move || gate.resume());
    }

    fn bad_weather(&self, place: usize, random: &mut Random) {
        let name = ["lost messages", "lost answers", "doubled", "slow"];
        let which = random.place(name.len());
        let mut share = |this: usize| match which == this {
            true => random.between(100, 700),
            false => 0,
        };
        let weather = Weather {
            lost_before: share(0),
            lost_after: share(1),
            doubled: share(2),
            slow: 500 + share(3) / 2,
            slowest: if which == 3 { 1200 } else { 20 },
            ..Weather::FAIR
        };
        self.world
            .fault(name.get(which).unwrap_or(&""), Some(place), "");
        self.host(place).link.set(weather);
        self.calm_later(self.host(place), random.millis(500, 9000));
    }

    fn clock_jump(&self, place: usize, random: &mut Random) {
        let hours = i64::try_from(random.below(48)).unwrap_or(0) - 24;
        self.world.fault("clock jump", Some(place), "");
        self.host(place).clock.set_wrong(hours * 3_600_000);
    }

    /// A machine is gone for ever, and a person says so; perhaps it was not.
    async fn lose_machine(&self, random: &mut Random) {
        // A store that has never met a host cannot forget it.
        let place = random.place(self.hosts.len() - self.moves.loners);
        let host = self.host(place);
        self.world.fault("machine lost", Some(place), "");
        host.destroy();
        self.world.facts().gone = Some(place);
        {
            let mut facts = self.world.facts();
            facts.gateways.retain(|(_, at), _| *at != place);
            facts.reserved.retain(|_, (at, _)| *at != place);
        }
        for ip in self.world.held_at(place, None) {
            self.world.gives(place, ip);
        }
        sleep(random.millis(0, 3000)).await;
        self.forget(place, random).await;
        let done = self.forgotten.load(std::sync::atomic::Ordering::Relaxed);
        if done && random.chance(400) {
            sleep(random.millis(0, 3000)).await;
            self.world.fault("forgotten comes back", Some(place), "");
            host.unearth();
        }
    }

    /// A person forgets a host, again and again until it is done.
    pub(crate) async fn forget(&self, place: usize, random: &mut Random) {
        if self.forgotten.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        let gone = self.host(place).id.clone();
        for _ in 0..FORGET_TRIES {
            let by = random.place(self.hosts.len());
            if by != place {
                let gone = gone.clone();
                let call = |ipam: Arc<netloom_ipam::AddressManager>| async move {
                    ipam.forget(&gone).await
                };
                if let Some(Ok(_)) = self.host(by).call("forget", call).await {
                    self.host(by).note("forgot", || gone_words(place));
                    let done = &self.forgotten;
                    done.store(true, std::sync::atomic::Ordering::Relaxed);
                    return;
                }
            }
            sleep(random.millis(200, 1500)).await;
        }
    }

    /// The store is put back to an earlier moment. Of the promised kind are those in which every
    /// host that saw nothing of what is lost stays away until a witness spoke.
    async fn roll_back(&self, random: &mut Random, promised: bool) {
        let snapshot = self.ground.snapshot();
        let before: Vec<u64> = self.hosts.iter().map(|host| host.starts()).collect();
        let known = self.on_record();
        for host in &self.hosts {
            // Counted anew from here.
            let _ = host.link.take_seen();
        }
        sleep(random.millis(200, 8000)).await;
        // A witness was told of changes of its own that are lost, more than one of them, because
        // one may have been told to a caller that was gone, and remembers: by a journal that takes it.
        // Who was stopped says nothing until a person starts it anew.
        let stopped = self.stopped().await;
        let is_witness = |(host, before): (&Arc<Host>, &u64)| {
            let runs = host.starts() == *before && host.gate().is_some();
            let speaks = runs && host.disk.is_well() && !stopped.contains(&host.number);
            host.link.take_seen() > 1 && speaks
        };
        let mut witnesses: Vec<bool> = self.hosts.iter().zip(&before).map(is_witness).collect();
        let now = self.on_record();
        let newcomers: Vec<_> = now.difference(&known).collect();
        if promised && !newcomers.is_empty() {
            // Perhaps nobody else knows who came in the lost time, and nobody waits for it then.
            for (witness, host) in witnesses.iter_mut().zip(&self.hosts) {
                *witness &= newcomers == [&format!("hosts/{}", host.id)];
            }
        }
        let lost = witnesses.contains(&true);
        if promised && !lost {
            // Nobody could speak first.
            return self.fault(random);
        }
        let blind = self.hosts.iter().zip(&witnesses);
        let blind: Vec<_> = blind
            .filter(|(_, witness)| promised && !**witness)
            .map(|(host, _)| host)
            .collect();
        self.world.fault(
            "rollback",
            None,
            if promised { "witnessed" } else { "blind" },
        );
        blind.iter().for_each(|host| host.link.set_blind(true));
        let identity = random.chance(300).then_some("simulated-2");
        let epoch = self.ground.peek("epoch");
        self.ground.restore(&snapshot, identity);
        *self.lost_epoch() = lost.then(|| epoch.unwrap_or_default());
        // All of those that know may be down: nobody else comes in before one of them is back.
        let until = Instant::now() + WITNESS_TIME;
        let lost_in = self.ground.peek("epoch");
        while lost && self.ground.peek("epoch") == lost_in && Instant::now() < until {
            sleep(Duration::from_millis(100)).await;
        }
        blind.iter().for_each(|host| host.link.set_blind(false));
    }

    /// Hosts that run and say nothing any more.
    async fn stopped(&self) -> BTreeSet<usize> {
        let mut stopped = BTreeSet::new();
        for host in &self.hosts {
            if let Some((_, ipam)) = host.ipam()
                && let Standing::Stopped { .. } = ipam.cluster().await.standing
            {
                stopped.insert(host.number);
            }
        }
        stopped
    }

    /// The keys of the hosts that the store knows.
    pub(crate) fn on_record(&self) -> BTreeSet<String> {
        let rows = self.ground.rows("hosts/").into_iter();
        rows.map(|(key, _)| key.as_str().to_owned()).collect()
    }

    /// The store is emptied, and a person begins it anew from a host that knows the others.
    async fn wipe(&self, random: &mut Random) {
        self.world.fault("wipe", None, "");
        let identity = random.chance(500).then_some("simulated-3");
        self.note_epoch();
        self.ground.wipe(identity);
        sleep(random.millis(100, 4000)).await;
        self.initialise(random.place(self.hosts.len())).await;
    }

    /// A person initialises the store, again and again until it is done.
    pub(crate) async fn initialise(&self, first: usize) {
        for n in 0..INITIALISE_TRIES {
            if self.ground.peek("epoch").is_some() {
                return;
            }
            if self.moves.loners > 0 {
                self.initialise_for_all().await;
                continue;
            }
            let host = self.host((first + n) % self.hosts.len());
            let call =
                |ipam: Arc<netloom_ipam::AddressManager>| async move { ipam.initialise().await };
            drop(host.call("initialise", call).await);
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// A machine is cloned with its state directory, and both run.
    fn twin(&self) {
        if let Some(twin) = self.hosts.last() {
            self.world.fault("twin", Some(0), "");
            twin.become_twin_of(self.host(0));
        }
    }
}

fn gone_words(place: usize) -> String {
    format!("h{place}")
}

/// A person's patience.
const FORGET_TRIES: usize = 20;
const INITIALISE_TRIES: usize = 40;
/// In which some host that saw the later time comes back to the store.
const WITNESS_TIME: Duration = Duration::from_secs(60);
