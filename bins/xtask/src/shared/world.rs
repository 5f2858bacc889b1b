//! Two Docker hosts, and the store between them.

use anyhow::{Context, Result, ensure};
use netloom_core::StoreKind;
use netloom_lab::servers::{Shape, StoreOptions, StoreServer};
use netloom_lab::{DockerHost, Peer, Version};

use super::machine::Machine;
use crate::e2e::Length;
use crate::{repo, term};

/// Two hosts that reach the store by a wire each, and do not reach each other: all that they know
/// of each other comes by the store.
pub(super) struct World {
    // Before the peer, whose network it runs in.
    pub(super) store: StoreServer,
    pub(super) one: Machine,
    pub(super) two: Machine,
    peer: Peer,
    pub(super) length: Length,
}

impl World {
    /// Boots both machines, starts the store, initialises it and lets both hosts join.
    pub(super) fn start(version: Version, kind: StoreKind, length: Length) -> Result<Self> {
        let boot = |name| -> Result<Machine> {
            let host = DockerHost::start(repo::host_options(version)?)?;
            Ok(Machine { name, host })
        };
        let (one, two) = std::thread::scope(|scope| {
            let other = scope.spawn(|| boot("two"));
            let one = boot("one");
            (one, other.join().expect("a boot does not panic"))
        });
        let (one, two) = (one?, two?);
        let peer = Peer::of(&one.host)?;
        peer.wire_second(&two.host)?;
        let listen = Peer::SELF.0.parse()?;
        let options = StoreOptions::new(kind, Shape::Single).listen(listen, Some(peer.netns()));
        let world = Self {
            store: StoreServer::with(&options)?,
            one,
            two,
            peer,
            length,
        };
        for machine in world.machines() {
            machine.host.configure_netloom(&world.settings())?;
            machine.host.start_netloom()?;
        }
        world.one.host.netloom("cluster init")?.ok()?;
        world.joined()?;
        Ok(world)
    }

    pub(super) fn machines(&self) -> [&Machine; 2] {
        [&self.one, &self.two]
    }

    /// The daemon's configuration with the store.
    pub(super) fn settings(&self) -> String {
        format!("store = \"{}\"\n", self.store.url().url)
    }

    /// Waits until both hosts take part, and see each other.
    pub(super) fn joined(&self) -> Result<()> {
        for machine in self.machines() {
            machine.stands("joined")?;
        }
        let ids = [self.one.id()?, self.two.id()?];
        for machine in self.machines() {
            netloom_lab::wait_for("both hosts on record", 30, || {
                let members = machine.members()?;
                let both = ids.iter().all(|id| members.contains(id)) && members.len() == 2;
                ensure!(both, "{members:?}, not {ids:?}");
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The same network on both hosts.
    pub(super) fn network(&self, name: &str, subnet: &str) -> Result<()> {
        let mut machines = self.machines().into_iter();
        machines.try_for_each(|machine| machine.network(name, subnet))
    }

    /// Pulls the plug of host one and boots it again. Nothing is started.
    pub(super) fn reboot_one(&mut self) -> Result<()> {
        self.one.host.reboot()?;
        // The peer's end of the wire goes with the network of the other.
        let gone = || {
            let link = self.peer.exec("ip link show eth0");
            link.is_ok_and(|done| done.code != 0)
        };
        netloom_lab::until("the end of the old wire", 10, gone)?;
        self.peer
            .wire(&self.one.host)
            .context("the wire after the reboot")
    }

    /// Host one goes on as a new installation: nothing that Netloom or Docker kept is there.
    pub(super) fn reinstall_one(&self) -> Result<()> {
        let host = &self.one.host;
        host.forget_netloom_state()?;
        host.shell("rm -rf /var/lib/docker/network /var/lib/docker/containers")?
            .ok()?;
        host.start_netloom()?;
        host.start_dockerd()
    }

    pub(super) fn audits_are_clean(&self) -> Result<()> {
        let mut machines = self.machines().into_iter();
        machines.try_for_each(Machine::audit_is_clean)
    }

    /// Removes containers and networks and demands that both hosts are well.
    pub(super) fn tidy_up(&self) -> Result<()> {
        for machine in self.machines() {
            machine.remove_everything()?;
        }
        self.joined()?;
        self.audits_are_clean()
    }

    pub(super) fn last_words(&self) {
        for machine in self.machines() {
            machine.last_words();
        }
        term::say("the last of the store:");
        let log = self.store.log(0);
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(5)..);
        term::aside(&last.unwrap_or_default().join("\n"));
    }
}
