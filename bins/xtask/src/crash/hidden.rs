//! Steps that no person asks for: starts, repairs, settlements, compaction.

use anyhow::{Context, Result};
use netloom_lab::{DockerHost, Done};
use serde_json::{Value, json};

use super::life::becomes_true;
use super::machine::{Machine, well};

/// Settling takes two sightings, the grace time between them, and a kill of the daemon forgets the
/// first one.
const SETTLED_WITHIN: u64 = 30;

/// A subnet that no network of the life has.
const OWN: &str = "10.60.0.0/24";
/// The subnet of the network `blue`.
const BLUE: &str = "10.20.0.0/24";
/// With crash points a file of the journal holds 64 frames of 512 bytes (32 KiB, the least); each
/// pair writes two.
const PAIRS: usize = 80;

/// A daemon that finds nothing of its own on the disk.
pub(super) fn first_start(m: &Machine) -> Result<Done> {
    m.host.stop_netloom()?;
    m.host.shell("rm -rf /var/lib/netloom")?.ok()?;
    m.start()?;
    Ok(well())
}

/// A daemon that dies and comes back to networks and containers.
pub(super) fn restart(m: &Machine) -> Result<Done> {
    // A death that was planned in the step before may have come when its command was done.
    m.host.wait_for_netloom()?;
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

/// A pool of the step's own. Asked for again after a kill it may still be held by what the kill
/// left behind, until that is settled.
fn own_pool(m: &Machine) -> Result<String> {
    let wish = json!({
        "AddressSpace": "NetloomLocal", "Pool": OWN, "SubPool": "", "Options": {}, "V6": false
    });
    netloom_lab::wait_for("a pool of the step's own", SETTLED_WITHIN, || {
        let answer = m.plugin("IpamDriver.RequestPool", &wish)?;
        let id = answer.get("PoolID").and_then(Value::as_str);
        Ok(id.context("no pool id in the answer")?.to_owned())
    })
}

/// The reference to its pool that Docker keeps for the network with `subnet`. Docker's API does
/// not show it, and its database may hold older ones too: the one that answers is the one.
pub(crate) fn pool_reference(host: &DockerHost, subnet: &str) -> Result<String> {
    let file = "/var/lib/docker/network/files/local-kv.db";
    let pattern = subnet.replace('.', "\\.").replace('/', "-");
    let found = host
        .shell(&format!(
            "grep -aoE 'local-{pattern}-[0-9a-f]{{16}}' {file} | sort -u"
        ))?
        .ok()?;
    let base = subnet.rsplit_once('.').map_or(subnet, |(base, _)| base);
    let unused = format!("{base}.250");
    let answers = |id: &&str| {
        // A refusal comes as an answer with an `Err` in it.
        let granted = |answer: String| !answer.contains("\"Err");
        let ask = |method: &str, body: Value| {
            let answer = host.plugin(method, &body.to_string());
            answer.is_ok_and(granted)
        };
        let request = json!({ "PoolID": id, "Address": unused, "Options": {} });
        let release = json!({ "PoolID": id, "Address": unused });
        ask("IpamDriver.RequestAddress", request) && ask("IpamDriver.ReleaseAddress", release)
    };
    let id = found.lines().find(answers);
    Ok(id
        .context("Docker keeps no reference that answers")?
        .to_owned())
}

fn pool_of_blue(m: &Machine) -> Result<String> {
    pool_reference(&m.host, BLUE)
}

fn address_in(m: &Machine, pool: &str) -> Result<String> {
    let wish = json!({ "PoolID": pool, "Address": "", "Options": {} });
    let answer = m.plugin("IpamDriver.RequestAddress", &wish)?;
    let cidr = answer.get("Address").and_then(Value::as_str);
    Ok(cidr.context("no address in the answer")?.to_owned())
}

fn list_lacks(m: &Machine, list: &str, what: &str) -> Result<bool> {
    Ok(!m.host.netloom(list)?.ok()?.contains(what))
}

/// An address that Docker asked for, and whose answer it never used.
pub(super) fn in_doubt(m: &Machine) -> Result<Done> {
    let address = address_in(m, &pool_of_blue(m)?)?;
    let ip = address.split('/').next().unwrap_or(&address);
    becomes_true("the end of the doubt", SETTLED_WITHIN, || {
        list_lacks(m, "address ls", &format!("{ip} "))
    })
}

/// A pool that Docker asked for, and made no network with.
pub(super) fn stray_pool(m: &Machine) -> Result<Done> {
    own_pool(m)?;
    becomes_true("the end of the pool", SETTLED_WITHIN, || {
        list_lacks(m, "pool ls", OWN)
    })
}

/// An endpoint that Docker asked for, and forgot.
pub(super) fn stray_endpoint(m: &Machine) -> Result<Done> {
    let address = address_in(m, &pool_of_blue(m)?)?;
    let network = m.docker("network inspect -f '{{.Id}}' blue")?;
    let endpoint = "e".repeat(64);
    let wish = json!({
        "NetworkID": network, "EndpointID": endpoint, "Options": {},
        "Interface": { "Address": address, "AddressIPv6": "", "MacAddress": "" }
    });
    m.plugin("NetworkDriver.CreateEndpoint", &wish)?;
    let ip = address.split('/').next().unwrap_or(&address);
    becomes_true("the end of the endpoint", 2 * SETTLED_WITHIN, || {
        Ok(list_lacks(m, "endpoint ls", &endpoint[..12])?
            && list_lacks(m, "address ls", &format!("{ip} "))?)
    })
}

/// An address that is given back while a container uses it: nobody else may get it.
pub(super) fn unrecorded(m: &Machine) -> Result<Done> {
    let field = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let ip = m.docker(&format!("inspect -f '{field}' two"))?;
    let wish = json!({ "PoolID": pool_of_blue(m)?, "Address": ip });
    m.plugin("IpamDriver.ReleaseAddress", &wish)?;
    becomes_true("the address to be known again", SETTLED_WITHIN, || {
        m.no_address_is_out_twice().map(|()| true)
    })
}

/// So many addresses asked for and given back that the journal starts a new file and compacts.
pub(super) fn many_addresses(m: &Machine) -> Result<Done> {
    let pool = own_pool(m)?;
    for _ in 0..PAIRS {
        // A call that a kill cut short is not repeated: its address is settled later.
        if let Ok(address) = address_in(m, &pool) {
            let ip = address.split('/').next().unwrap_or(&address);
            let wish = json!({ "PoolID": pool, "Address": ip });
            let _ = m.plugin("IpamDriver.ReleaseAddress", &wish);
        }
    }
    m.host.wait_for_netloom()?;
    let _ = m.plugin("IpamDriver.ReleasePool", &json!({ "PoolID": pool }));
    becomes_true("the end of the pool", SETTLED_WITHIN, || {
        list_lacks(m, "pool ls", OWN)
    })
}
