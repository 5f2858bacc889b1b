//! Planted faults: each is found and named by the audit or the doctor, and nothing else is.
//!
//! The daemon would mend most of them at once, by itself. So that there is something to find, it
//! runs here with its watcher off and its rounds an hour apart; a last scenario shows that without
//! this the same faults are mended by themselves.

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, bail, ensure};
use netloom_lab::{Done, wait_for};
use serde_json::{Value, json};

use super::{Lab, Scenario};
use crate::{crash, term};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::whole("faults: a stray link is found and removed", |lab| {
        planted(lab, &STRAY_LINK)
    }),
    Scenario::whole("faults: a stray rule is found and removed", |lab| {
        planted(lab, &STRAY_RULE)
    }),
    Scenario::whole("faults: a stray element is found and removed", |lab| {
        planted(lab, &STRAY_ELEMENT)
    }),
    Scenario::whole(
        "faults: an address without a user is found and freed",
        |lab| planted(lab, &STRAY_ADDRESS),
    ),
    Scenario::whole("faults: a stray endpoint is found and removed", |lab| {
        planted(lab, &STRAY_ENDPOINT)
    }),
    Scenario::whole("faults: a missing bridge is found and made again", |lab| {
        planted(lab, &MISSING_BRIDGE)
    }),
    Scenario::whole(
        "faults: forwarding switched off is found and mended",
        |lab| planted(lab, &FORWARDING_OFF),
    ),
    Scenario::whole("faults: rules of legacy iptables are found", |lab| {
        planted(lab, &LEGACY_IPTABLES)
    }),
    Scenario::whole("faults: a stale plugin socket is found", |lab| {
        planted(lab, &STALE_SOCKET)
    }),
    Scenario::whole("faults: a route into a network's subnet is found", |lab| {
        planted(lab, &OVERLAPPING_ROUTE)
    }),
    Scenario::whole("faults: a wrong MTU is found and mended", |lab| {
        planted(lab, &WRONG_MTU)
    }),
    Scenario::whole(
        "faults: without waiting, the daemon mends them by itself",
        by_itself,
    ),
];

/// Whether a fault could be planted on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    Yes,
    /// The kernel has no way to; told in one loud line.
    Impossible(&'static str),
}

/// How a fault goes away.
#[derive(Clone, Copy)]
enum Cure {
    /// `netloom audit --repair`
    Repair,
    /// A person, as the finding's next step says.
    Hand(fn(&Lab) -> Result<()>),
}

/// One thing that can be wrong with a host.
struct Fault {
    /// The stable name of its finding.
    kind: &'static str,
    plant: fn(&Lab) -> Result<Planted>,
    cure: Cure,
}

const STRAY_LINK: Fault = Fault {
    kind: "stray-link",
    plant: |lab| {
        let id = "f".repeat(64);
        let add = "ip link add nlvfeedfeedfe type veth peer name nlxfeed";
        on_host(
            lab,
            &format!("{add} && ip link set nlvfeedfeedfe alias netloom:{id}"),
        )
    },
    cure: Cure::Repair,
};

const STRAY_RULE: Fault = Fault {
    kind: "stray-rule",
    plant: |lab| on_host(lab, "nft insert rule inet netloom forward counter accept"),
    cure: Cure::Repair,
};

const STRAY_ELEMENT: Fault = Fault {
    kind: "stray-element",
    plant: |lab| {
        let port = "tcp . 9999 : 10.20.0.77 . 80";
        on_host(
            lab,
            &format!("nft add element inet netloom any4 '{{ {port} }}'"),
        )
    },
    cure: Cure::Repair,
};

const STRAY_ADDRESS: Fault = Fault {
    kind: "stray-address",
    plant: |lab| {
        // One that nobody confirmed would be settled in silence: that is its normal end.
        endpoint(lab)?;
        let gone = json!({ "NetworkID": network(lab)?, "EndpointID": "e".repeat(64) });
        lab.host
            .plugin("NetworkDriver.DeleteEndpoint", &gone.to_string())?;
        Ok(Planted::Yes)
    },
    cure: Cure::Repair,
};

const STRAY_ENDPOINT: Fault = Fault {
    kind: "stray-endpoint",
    plant: |lab| endpoint(lab).map(|()| Planted::Yes),
    cure: Cure::Repair,
};

const MISSING_BRIDGE: Fault = Fault {
    kind: "missing-bridge",
    plant: |lab| {
        let bridge = bridge(lab)?;
        on_host(lab, &format!("ip link delete {bridge}"))
    },
    cure: Cure::Repair,
};

const FORWARDING_OFF: Fault = Fault {
    kind: "forwarding-off",
    plant: |lab| on_host(lab, "echo 0 >/proc/sys/net/ipv4/ip_forward"),
    cure: Cure::Repair,
};

const LEGACY_IPTABLES: Fault = Fault {
    kind: "legacy-iptables",
    plant: |lab| {
        let rule = "iptables-legacy -A FORWARD -s 192.0.2.77 -j ACCEPT";
        if lab.host.shell(rule)?.code != 0 {
            return Ok(Planted::Impossible("this kernel has no legacy iptables"));
        }
        // As on a host whose dockerd writes its rules there.
        on_host(
            lab,
            "nft delete table ip filter; nft delete table ip6 filter || true",
        )
    },
    cure: Cure::Hand(|lab| {
        lab.host
            .shell("iptables-legacy -D FORWARD -s 192.0.2.77 -j ACCEPT")?;
        // dockerd writes its chains again, and ours in them are missing.
        lab.host.restart_dockerd()?;
        report(&lab.host.netloom("--json audit --repair")?).map(drop)
    }),
};

const DEAD_SOCKET: &str = "/run/docker/plugins/dead.sock";

const STALE_SOCKET: Fault = Fault {
    kind: "stale-socket",
    plant: |lab| {
        // The file outlives the listener, as that of a killed plugin does.
        drop(UnixListener::bind(lab.host.path(DEAD_SOCKET))?);
        Ok(Planted::Yes)
    },
    cure: Cure::Hand(|lab| Ok(std::fs::remove_file(lab.host.path(DEAD_SOCKET))?)),
};

const OVERLAPPING_ROUTE: Fault = Fault {
    kind: "overlapping-route",
    plant: |lab| on_host(lab, "ip route add 10.20.0.128/25 dev eth0"),
    cure: Cure::Hand(|lab| on_host(lab, "ip route delete 10.20.0.128/25 dev eth0").map(drop)),
};

const WRONG_MTU: Fault = Fault {
    kind: "wrong-mtu",
    plant: |lab| {
        let bridge = bridge(lab)?;
        let port = lab
            .host
            .shell(&format!("ls /sys/class/net/{bridge}/brif"))?
            .ok()?;
        on_host(lab, &format!("ip link set {port} mtu 1300"))
    },
    cure: Cure::Repair,
};

fn on_host(lab: &Lab, script: &str) -> Result<Planted> {
    lab.host.shell(script)?.ok()?;
    Ok(Planted::Yes)
}

fn network(lab: &Lab) -> Result<String> {
    lab.docker("network inspect -f '{{.Id}}' blue")
}

fn bridge(lab: &Lab) -> Result<String> {
    let id = network(lab)?;
    Ok(format!("nl-{}", id.get(..12).context("an id is longer")?))
}

/// An address of `blue` that Docker seems to have asked for.
fn address(lab: &Lab) -> Result<String> {
    let pool = crash::pool_reference(&lab.host, "10.20.0.0/24")?;
    let wish = json!({ "PoolID": pool, "Address": "", "Options": {} });
    let answer = lab
        .host
        .plugin("IpamDriver.RequestAddress", &wish.to_string())?;
    let answer: Value = serde_json::from_str(&answer)?;
    let address = answer.get("Address").and_then(Value::as_str);
    Ok(address.context("no address in the answer")?.to_owned())
}

/// An endpoint of `blue` that Docker seems to have made and forgotten.
fn endpoint(lab: &Lab) -> Result<()> {
    let wish = json!({
        "NetworkID": network(lab)?, "EndpointID": "e".repeat(64), "Options": {},
        "Interface": { "Address": address(lab)?, "AddressIPv6": "", "MacAddress": "" }
    });
    let wish = wish.to_string();
    lab.host.plugin("NetworkDriver.CreateEndpoint", &wish)?;
    Ok(())
}

/// Plants a fault under a daemon that leaves it, finds it, has it mended, and finds nothing.
fn planted(lab: &mut Lab, fault: &Fault) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.run("one", "--network blue -p 8080:80")?;
    start_patient(lab)?;
    ensure!(
        findings(lab)?.is_empty(),
        "before the fault was planted: {:?}",
        findings(lab)?
    );
    if let Planted::Impossible(why) = (fault.plant)(lab)? {
        term::say(&format!("SKIPPED {}: {why}", fault.kind));
        return restart(lab);
    }
    wait_for(fault.kind, NAMED_WITHIN, || names_it_alone(lab, fault))?;
    match fault.cure {
        Cure::Repair => {
            // What needs two sightings is mended by the second.
            wait_for("the repair", MENDED_WITHIN, || {
                report(&lab.host.netloom("--json audit --repair")?)?;
                is_well(lab)
            })?;
        }
        Cure::Hand(cure) => {
            cure(lab)?;
            is_well(lab)?;
        }
    }
    restart(lab)
}

/// A stray record is told of when it is 15 s old, an unused address after three grace times.
const NAMED_WITHIN: u64 = 30;
/// Two sightings with a grace time of a second between them.
const MENDED_WITHIN: u64 = 20;
/// What nothing tells the daemon of waits for its next round, of which there is one in 30 seconds.
const LOOKED_WITHIN: u64 = 45;

fn names_it_alone(lab: &Lab, fault: &Fault) -> Result<()> {
    let findings = findings(lab)?;
    let kinds: BTreeSet<&str> = findings.iter().filter_map(|f| f["kind"].as_str()).collect();
    ensure!(
        kinds == BTreeSet::from([fault.kind]),
        "not {} alone: {findings:?}",
        fault.kind
    );
    let says = |f: &Value, key: &str| f[key].as_str().is_some_and(|text| !text.is_empty());
    ensure!(
        findings
            .iter()
            .all(|f| says(f, "subject") && says(f, "next_step")),
        "a finding without subject or next step: {findings:?}"
    );
    Ok(())
}

fn is_well(lab: &Lab) -> Result<()> {
    let left = findings(lab)?;
    ensure!(left.is_empty(), "still found: {left:?}");
    Ok(())
}

/// What audit and doctor find.
fn findings(lab: &Lab) -> Result<Vec<Value>> {
    let mut all = report(&lab.host.netloom("--json audit")?)?;
    all.extend(report(&lab.host.netloom("--json doctor")?)?);
    Ok(all)
}

fn report(done: &Done) -> Result<Vec<Value>> {
    // 3 says that something was found.
    if done.code != 0 && done.code != 3 {
        bail!("{done}");
    }
    let report: Value = serde_json::from_str(&done.stdout).context("not JSON")?;
    let list = |key: &str| {
        let list = report.get(key).and_then(Value::as_array).cloned();
        list.with_context(|| format!("no {key} in the report"))
    };
    let not_asked = list("not_asked")?;
    ensure!(
        not_asked.is_empty(),
        "not everything was asked: {not_asked:?}"
    );
    list("findings")
}

/// Starts a daemon that mends nothing unasked.
fn start_patient(lab: &Lab) -> Result<()> {
    lab.host.stop_netloom()?;
    let settings = "NETLOOM_WATCH=off NETLOOM_AUDIT_INTERVAL_S=3600 NETLOOM_SETTLE_AFTER_S=1 \
                    NETLOOM_METRICS_LISTEN=127.0.0.1:9324";
    let holder = "netloom-holder --relay /opt/netloom/netloom-relay -- /opt/netloom/netloomd";
    lab.host
        .spawn("netloom", &format!("env {settings} {holder}"))?;
    lab.host.wait_for_netloom()?;
    // Its first round comes at once; a fault planted before it would be mended by it.
    wait_for("the first round", 10, || {
        let metrics = lab.fetch_from_host("http://127.0.0.1:9324/metrics")?;
        let rounds = metrics.lines().find(|l| l.contains("audit_rounds_total "));
        ensure!(rounds.is_some_and(|l| !l.ends_with(" 0")), "no round yet");
        Ok(())
    })
}

/// Back to the daemon of the other scenarios.
fn restart(lab: &Lab) -> Result<()> {
    lab.host.stop_netloom()?;
    lab.host.start_netloom()
}

/// What a daemon at work mends within seconds, as its log tells.
fn by_itself(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.run("one", "--network blue -p 8080:80")?;
    for fault in [
        STRAY_LINK,
        STRAY_RULE,
        STRAY_ELEMENT,
        MISSING_BRIDGE,
        WRONG_MTU,
    ] {
        (fault.plant)(lab)?;
        wait_for(fault.kind, LOOKED_WITHIN, || {
            let log = lab.host.whole_log("netloom");
            let told = format!("kind=\"{}\"", fault.kind);
            ensure!(
                log.lines()
                    .any(|l| l.contains("mended") && l.contains(&told)),
                "the log does not tell that {} was mended",
                fault.kind
            );
            is_well(lab)
        })?;
    }
    Ok(())
}
