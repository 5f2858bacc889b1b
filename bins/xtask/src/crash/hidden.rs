//! Steps that no person asks for: starts, repairs, settlements, compaction.

use anyhow::{Context, Result, ensure};
use netloom_lab::Done;
use serde_json::{Value, json};

use super::life::becomes_true;
use super::machine::{Machine, well};

/// Settling takes two sightings, the grace time between them, and a kill of the daemon forgets the
/// first one.
const SETTLED_WITHIN: u64 = 30;

/// The subnet of the network `blue`.
const BLUE: &str = "10.20.0.0/24";

/// A daemon that finds nothing of its own on the disk.
pub(super) fn first_start(m: &Machine) -> Result<Done> {
    m.host.stop_netloom()?;
    m.host.shell("rm -rf /var/lib/netloom")?.ok()?;
    m.start()?;
    Ok(well())
}

/// A daemon that dies and comes back to networks and containers.
pub(super) fn restart(m: &Machine) -> Result<Done> {
    m.host.kill_netloom_daemon()?;
    m.host.wait_for_netloom()?;
    Ok(well())
}

/// Somebody deletes the bridge of `blue`; it comes back, with what was on it.
pub(super) fn vandalism(m: &Machine) -> Result<Done> {
    let id = m.docker("network inspect -f '{{.Id}}' blue")?;
    let bridge = format!("nl-{}", id.get(..12).context("a network id is longer")?);
    m.host.exec(&format!("ip link delete {bridge}"))?.ok()?;
    becomes_true("the bridge again", SETTLED_WITHIN, || {
        Ok(m.host.exec(&format!("ip link show {bridge}"))?.code == 0
            && m.host.netloom("audit")?.code == 0)
    })
}

/// The reference of `blue` to its pool, as Docker was told it. Docker shows it to nobody, so it is
/// asked for once more: the same subnet with the same options is refused, and Netloom's own list
/// does not tell ids. So a pool of the step's own is used.
fn own_pool(m: &Machine, subnet: &str) -> Result<String> {
    let wish = json!({ "AddressSpace": "netloom", "Pool": subnet, "SubPool": "", "Options": {}, "V6": false });
    let answer = m.plugin("IpamDriver.RequestPool", &wish)?;
    let id = answer.get("PoolID").and_then(Value::as_str);
    Ok(id.context("no pool id in the answer")?.to_owned())
}

fn address_in(m: &Machine, pool: &str) -> Result<String> {
    let wish = json!({ "PoolID": pool, "Address": "", "Options": {} });
    let answer = m.plugin("IpamDriver.RequestAddress", &wish)?;
    let cidr = answer.get("Address").and_then(Value::as_str);
    let cidr = cidr.context("no address in the answer")?;
    Ok(cidr.split('/').next().unwrap_or(cidr).to_owned())
}
