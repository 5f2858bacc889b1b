//! One life of networks and containers, in steps; what each does, and how it is repeated.

use anyhow::{Result, ensure};
use netloom_lab::Done;

use super::hidden;
use super::machine::{Machine, well};

/// When a step is part of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Always: later steps rest on it.
    Always,
    /// Where its points are listed, or a kill is planned in it.
    Alone,
}

/// One command of a life.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) when: When,
    /// The command.
    pub(super) act: fn(&Machine) -> Result<Done>,
    /// After a clear failure: removes what Docker keeps of it; says whether there is anything left
    /// to repeat.
    pub(super) clear: fn(&Machine) -> Result<Again>,
    /// What must be true after it.
    pub(super) check: fn(&Machine) -> Result<()>,
}

/// Whether a command that failed is given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Yes,
    /// It failed after its work was done, as `docker rm` may: asked again it has nothing to do.
    Done,
}

impl Step {
    const fn new(name: &'static str, act: fn(&Machine) -> Result<Done>) -> Self {
        Self {
            name,
            when: When::Always,
            act,
            clear: |_| Ok(Again::Yes),
            check: |_| Ok(()),
        }
    }

    const fn alone(mut self) -> Self {
        self.when = When::Alone;
        self
    }

    const fn clear(mut self, clear: fn(&Machine) -> Result<Again>) -> Self {
        self.clear = clear;
        self
    }

    const fn check(mut self, check: fn(&Machine) -> Result<()>) -> Self {
        self.check = check;
        self
    }
}

/// A life: what operators do, and in between what goes on by itself.
pub(super) const LIFE: &[Step] = &[
    Step::new("first start", hidden::first_start),
    Step::new("network create", |m| {
        m.host.try_docker(&create("--subnet 10.20.0.0/24 blue"))
    })
    .clear(|m| clear_network(m, "blue")),
    Step::new("network create, pool by itself", |m| {
        m.host.try_docker(&create("--ipv6 red"))
    })
    .clear(|m| clear_network(m, "red")),
    Step::new("address reserve", |m| {
        m.host.netloom("address reserve 10.20.0.200")
    }),
    Step::new("run", |m| {
        let server = "sh -c 'hostname >/www/index.html; exec httpd -f -p 80 -h /www'";
        m.host
            .try_docker(&run("one", &format!("-p 8080:80 lab {server}")))
    })
    .clear(|m| clear_container(m, "one")),
    Step::new("network connect", |m| {
        m.host.try_docker("network connect red one")
    })
    .clear(|m| {
        // Docker may list an endpoint whose connection failed.
        m.host.try_docker("network disconnect -f red one")?;
        Ok(Again::Yes)
    }),
    Step::new("run a second one", |m| {
        m.host.try_docker(&run("two", "lab"))
    })
    .clear(|m| clear_container(m, "two"))
    .check(all_works),
    Step::new("restart of the daemon", hidden::restart).check(all_works),
    Step::new("a bridge removed by somebody", hidden::vandalism)
        .alone()
        .check(all_works),
    Step::new("stop", |m| m.host.try_docker("stop -t 0 one")),
    Step::new("start", |m| m.host.try_docker("start one"))
        .clear(|m| {
            // A container may run although its start was reported as failed.
            m.host.try_docker("stop -t 0 one")?;
            Ok(Again::Yes)
        })
        .check(all_works),
    Step::new("network disconnect", |m| {
        m.host.try_docker("network disconnect red one")
    })
    .clear(|m| {
        let members = m.docker("network inspect -f '{{len .Containers}}' red")?;
        Ok(if members == "0" {
            Again::Done
        } else {
            Again::Yes
        })
    })
    .check(all_works),
    Step::new("an address nobody confirms", hidden::in_doubt).alone(),
    Step::new("a pool nobody uses", hidden::stray_pool).alone(),
    Step::new("an endpoint nobody joins", hidden::stray_endpoint).alone(),
    Step::new("an address given back in use", hidden::unrecorded)
        .alone()
        .check(all_works),
    Step::new("compaction", hidden::many_addresses).alone(),
    Step::new("rm", |m| m.host.try_docker("rm -f one")).clear(|m| is_gone(m, "inspect one")),
    Step::new("rm of the second one", |m| m.host.try_docker("rm -f two"))
        .clear(|m| is_gone(m, "inspect two")),
    Step::new("address release", |m| {
        m.host.netloom("address release 10.20.0.200")
    })
    .clear(|m| {
        let held = m.host.netloom("address ls")?.ok()?;
        Ok(if held.contains("10.20.0.200") {
            Again::Yes
        } else {
            Again::Done
        })
    }),
    Step::new("network rm", |m| m.host.try_docker("network rm blue"))
        .clear(|m| is_gone(m, "network inspect blue")),
    Step::new("network rm of the second one", |m| {
        m.host.try_docker("network rm red")
    })
    .clear(|m| is_gone(m, "network inspect red")),
];

fn create(more: &str) -> String {
    format!("network create -d netloom --ipam-driver netloom {more}")
}

fn run(name: &str, more: &str) -> String {
    // The first process of a container ignores what it does not handle: KILL stops it at once.
    format!("run -d --name {name} --hostname {name} --stop-signal KILL --network blue {more}")
}

fn clear_network(m: &Machine, name: &str) -> Result<Again> {
    if m.knows(&format!("network inspect {name}"))? {
        m.docker(&format!("network rm {name}"))?;
    }
    Ok(Again::Yes)
}

fn clear_container(m: &Machine, name: &str) -> Result<Again> {
    if m.knows(&format!("inspect {name}"))? {
        m.docker(&format!("rm -f {name}"))?;
    }
    Ok(Again::Yes)
}

fn is_gone(m: &Machine, question: &str) -> Result<Again> {
    Ok(if m.knows(question)? {
        Again::Yes
    } else {
        Again::Done
    })
}

/// Names, packets and the published port work, and no address is out twice.
fn all_works(m: &Machine) -> Result<()> {
    m.no_address_is_out_twice()?;
    netloom_lab::wait_for("a ping between the containers", 10, || {
        m.docker("exec two ping -c 1 -W 1 one")
    })?;
    let page = netloom_lab::wait_for("the published port", 10, || {
        m.host.exec("xtask fetch http://127.0.0.1:8080/")?.ok()
    })?;
    ensure!(page == "one", "another server answered at the port: {page}");
    Ok(())
}

/// A step that is nothing but something that must become true.
pub(super) fn becomes_true(
    what: &str,
    seconds: u64,
    mut look: impl FnMut() -> Result<bool>,
) -> Result<Done> {
    netloom_lab::wait_for(what, seconds, || {
        ensure!(look()?, "not yet");
        Ok(())
    })?;
    Ok(well())
}
