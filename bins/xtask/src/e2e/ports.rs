//! Published ports.

use anyhow::{Context, Result, ensure};
use netloom_lab::Peer;
use serde_json::{Value, json};

use super::{Lab, Scenario};
use crate::crash::pool_reference;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::short("ports: a fixed TCP port from everywhere", fixed_tcp),
    Scenario::whole("ports: UDP", udp),
    Scenario::whole("ports: a random port is told by `netloom port`", random),
    Scenario::whole("ports: ranges", ranges),
    Scenario::whole("ports: a host address limits who reaches it", host_address),
    Scenario::whole("ports: a taken port is refused, and named", taken),
    Scenario::whole("ports: IPv6", ipv6),
    Scenario::whole("ports: SCTP", sctp),
    Scenario::whole(
        "ports: those that Docker publishes stand in `docker ps`",
        dockers_own,
    ),
    Scenario::whole(
        "ports: flows of a removed UDP port are forgotten",
        forgotten_flows,
    ),
    Scenario::whole(
        "ports: they move with the gateway to another network",
        hand_over,
    ),
    Scenario::whole(
        "ports: what is left of a container gives its port away at once",
        left_behind,
    ),
    Scenario::whole("ports: many of one container come and go together", many),
];

fn url(port: u16) -> String {
    format!("http://{}:{port}/", Peer::HOST.0)
}

fn fixed_tcp(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.serve("web", "--network blue -p 8080:80")?;
    lab.run("other", "--network blue")?;
    let direct = format!("http://{}/", lab.address("web", "blue")?);
    for (whose, answer) in [
        ("another machine", lab.fetch_from_peer(&url(8080))),
        ("the host by its address", lab.fetch_from_host(&url(8080))),
        (
            "the host by the container's address",
            lab.fetch_from_host(&direct),
        ),
        (
            "the host by 127.0.0.1",
            lab.fetch_from_host("http://127.0.0.1:8080/"),
        ),
        (
            "a neighbour by the host's address",
            lab.fetch_from("other", &url(8080)),
        ),
        (
            "itself by the host's address",
            lab.fetch_from("web", &url(8080)),
        ),
        (
            "a neighbour by the gateway",
            lab.fetch_from("other", "http://10.20.0.1:8080/"),
        ),
    ] {
        let answer = answer.with_context(|| format!("asked by {whose}"))?;
        ensure!(answer == "web", "{whose} got `{answer}`");
    }
    let listening = lab.host.exec("ss -lnt")?.ok()?;
    ensure!(
        listening.contains(":8080"),
        "`ss -lnt` does not show the port: {listening}"
    );
    lab.docker("rm -f web")?;
    ensure!(
        lab.fetch_from_peer(&url(8080)).is_err(),
        "the port outlived its container"
    );
    ensure!(
        lab.fetch_from_host("http://127.0.0.1:8080/").is_err(),
        "the relay outlived it"
    );
    Ok(())
}

fn udp(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.run("echo", "--network blue -p 8053:80/udp")?;
    lab.echo_udp("echo")?;
    let ask = |to: &str| {
        let talk = "echo marco >&3; timeout 3 head -n 1 <&3";
        format!("bash -c 'exec 3<>/dev/udp/{to}/8053; {talk}'")
    };
    let answer = lab.peer.exec(&ask(Peer::HOST.0))?;
    ensure!(
        answer.stdout == "marco",
        "no echo to another machine: {answer}"
    );
    for to in [Peer::HOST.0, "127.0.0.1"] {
        let answer = lab.host.exec(&ask(to))?;
        ensure!(
            answer.stdout == "marco",
            "no echo to the host by {to}: {answer}"
        );
    }
    lab.host.stop("echo", "KILL")
}

fn random(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.serve("web", "--network blue -p 80")?;
    let told = lab.host.netloom("port web")?.ok()?;
    let port = published(&told).with_context(|| format!("no port in: {told}"))?;
    ensure!(
        lab.fetch_from_peer(&url(port))? == "web",
        "port {port} does not answer"
    );
    lab.fetch_from_host(&format!("http://127.0.0.1:{port}/"))
        .map(drop)
}

/// The host's port in what `netloom port` tells: the first `ADDRESS:PORT/PROTOCOL`.
fn published(told: &str) -> Option<u16> {
    let port = |word: &str| word.rsplit_once('/')?.0.rsplit_once(':')?.1.parse().ok();
    told.split_whitespace().find_map(port)
}

fn ranges(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.serve("first", "--network blue -p 8100-8102:80")?;
    lab.serve("second", "--network blue -p 8100-8102:80")?;
    let mut seen = Vec::new();
    for port in 8100..=8102 {
        seen.extend(lab.fetch_from_peer(&url(port)).ok());
    }
    seen.sort();
    ensure!(
        seen == ["first", "second"],
        "one port of the range for each, but: {seen:?}"
    );
    lab.serve("block", "--network blue -p 8200-8202:80-82")?;
    ensure!(
        lab.fetch_from_peer(&url(8200))? == "block",
        "the first of a block does not answer"
    );
    Ok(())
}

fn host_address(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.serve("local", "--network blue -p 127.0.0.1:8300:80")?;
    lab.serve(
        "wire",
        &format!("--network blue -p {}:8301:80", Peer::HOST.0),
    )?;
    ensure!(
        lab.fetch_from_host("http://127.0.0.1:8300/")? == "local",
        "not by 127.0.0.1"
    );
    ensure!(
        lab.fetch_from_peer(&url(8300)).is_err(),
        "127.0.0.1 is open to the wire"
    );
    ensure!(
        lab.fetch_from_peer(&url(8301))? == "wire",
        "not by the wire's address"
    );
    ensure!(
        lab.fetch_from_host("http://127.0.0.1:8301/").is_err(),
        "open on 127.0.0.1 too"
    );
    Ok(())
}

fn taken(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.serve("web", "--network blue -p 8080:80")?;
    let refused = lab
        .host
        .try_docker("run -d --name late --network blue -p 8080:80 lab")?
        .refused()?;
    ensure!(
        refused.contains("8080"),
        "the message does not name the port: {refused}"
    );
    ensure!(
        lab.fetch_from_peer(&url(8080))? == "web",
        "the first one lost its port"
    );
    lab.host.spawn("squatter", "busybox nc -l -p 8081")?;
    netloom_lab::wait_for("the other program's port", 10, || {
        let seen = lab.host.exec("ss -lnt")?.ok()?.contains(":8081");
        ensure!(seen, "it does not listen yet");
        Ok(())
    })?;
    let refused = lab
        .host
        .try_docker("run -d --name later --network blue -p 8081:80 lab")?
        .refused()?;
    lab.host.stop("squatter", "KILL")?;
    ensure!(
        refused.contains("8081"),
        "the message does not name the port: {refused}"
    );
    Ok(())
}

fn ipv6(lab: &mut Lab) -> Result<()> {
    lab.network("both", "--ipv6 --subnet 10.22.0.0/24 --subnet fd00:22::/64")?;
    lab.serve("web", "--network both -p 8086:80")?;
    let by_wire = format!("http://[{}]:8086/", Peer::HOST.1);
    ensure!(lab.fetch_from_peer(&by_wire)? == "web", "not by the wire");
    ensure!(
        lab.fetch_from_host("http://[::1]:8086/")? == "web",
        "not by ::1"
    );
    ensure!(lab.fetch_from_peer(&url(8086))? == "web", "not by IPv4");
    Ok(())
}

fn many(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.serve(
        "web",
        "--network blue -p 9000:80 -p 9001-9049:81-129 -p 9001-9049:81-129/udp",
    )?;
    ensure!(
        lab.fetch_from_peer(&url(9000))? == "web",
        "the first port does not answer"
    );
    lab.docker("rm -f web")?;
    lab.serve("web", "--network blue -p 9049:80")?;
    ensure!(
        lab.fetch_from_peer(&url(9049))? == "web",
        "a freed port does not answer"
    );
    Ok(())
}

/// Not every kernel speaks SCTP itself; what ours needs is that it forwards it.
fn sctp(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    lab.run("one", "--network blue -p 8400:80/sctp")?;
    let told = lab.host.netloom("port one")?.ok()?;
    ensure!(told.contains("8400/sctp"), "{told}");
    let elements = |lab: &Lab| -> Result<bool> {
        let table = lab.host.exec("nft list table inet netloom")?.ok()?;
        Ok(table
            .lines()
            .any(|l| l.contains("sctp") && l.contains("8400")))
    };
    ensure!(elements(lab)?, "no map of the kernel leads SCTP port 8400");
    lab.run("two", "--network blue -p 8400:80/udp")?;
    lab.docker("rm -f one")?;
    ensure!(!elements(lab)?, "the port outlived its container");
    Ok(())
}

fn dockers_own(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24 -o netloom.ports=docker")?;
    lab.serve("web", "--network blue -p 8402:80")?;
    lab.run("other", "--network blue")?;
    let shown = lab.docker("ps --filter name=web --format '{{.Ports}}'")?;
    ensure!(
        shown.contains(":8402->80/tcp"),
        "`docker ps` shows `{shown}`"
    );
    ensure!(lab.fetch_from_peer(&url(8402))? == "web", "not by the wire");
    lab.reaches("other", "web")?;
    lab.reaches("web", Peer::SELF.0)
}

fn forgotten_flows(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    let ask = format!(
        "bash -c 'exec 3<>/dev/udp/{}/8053; echo marco >&3; timeout 3 head -n 1 <&3'",
        Peer::HOST.0
    );
    let flows = |lab: &Lab| -> Result<String> {
        let list = lab.host.shell("conntrack -L -p udp 2>/dev/null")?.ok()?;
        let of_port: Vec<&str> = list.lines().filter(|l| l.contains("dport=8053")).collect();
        Ok(of_port.join("\n"))
    };
    // Another address for the second one: what is left of a flow would lead to nobody.
    for address in ["10.20.0.11", "10.20.0.12"] {
        lab.run(
            "echo",
            &format!("--network blue --ip {address} -p 8053:80/udp"),
        )?;
        lab.echo_udp("echo")?;
        let answer = lab.peer.exec(&ask)?;
        ensure!(answer.stdout == "marco", "no echo by {address}: {answer}");
        ensure!(!flows(lab)?.is_empty(), "the kernel follows no flow");
        lab.docker("rm -f echo")?;
        lab.host.stop("echo", "KILL")?;
        let left = flows(lab)?;
        ensure!(left.is_empty(), "flows to the removed port: {left}");
    }
    Ok(())
}

fn hand_over(lab: &mut Lab) -> Result<()> {
    lab.network("alpha", "--subnet 10.24.0.0/24")?;
    lab.network("beta", "--subnet 10.25.0.0/24")?;
    lab.serve("web", "--network alpha -p 8403:80")?;
    let answers = |lab: &Lab, by: &str| -> Result<()> {
        let answer = lab.fetch_from_peer(&url(8403)).context(by.to_owned())?;
        ensure!(answer == "web", "{by}: the port answers `{answer}`");
        let answer = lab
            .fetch_from_host("http://127.0.0.1:8403/")
            .context(by.to_owned())?;
        ensure!(answer == "web", "{by}: 127.0.0.1 answers `{answer}`");
        Ok(())
    };
    answers(lab, "one network")?;
    lab.docker("network connect beta web")?;
    answers(lab, "two networks")?;
    lab.docker("network disconnect alpha web")?;
    answers(lab, "after its first network is gone")?;
    lab.docker("network connect alpha web")?;
    answers(lab, "after the first is back")?;
    lab.docker("network disconnect beta web")?;
    answers(lab, "after the second is gone")?;
    // Docker programs the new way out before it revokes the old one, or after; neither may leave
    // an element behind.
    lab.docker("rm -f web")?;
    ensure!(lab.fetch_from_peer(&url(8403)).is_err(), "the port is left");
    Ok(())
}

/// Makes what is left of a container whose end nobody told the daemon of: an endpoint with a
/// published port, whose network namespace and link are gone. Gives its network's and its own id.
fn lost_leave(lab: &Lab, address: &str, port: u16) -> Result<(String, String)> {
    let network = lab.docker("network inspect -f '{{.Id}}' blue")?;
    let endpoint = "d".repeat(64);
    let about = |more: Value| {
        let mut body = json!({ "NetworkID": network, "EndpointID": endpoint, "Options": {} });
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        body.to_string()
    };
    let call = |method: &str, more: Value| -> Result<Value> {
        let answer = lab
            .host
            .plugin(&format!("NetworkDriver.{method}"), &about(more))?;
        serde_json::from_str(&answer).with_context(|| format!("{method}: {answer}"))
    };
    let interface = json!({ "Address": address, "AddressIPv6": "", "MacAddress": "" });
    call("CreateEndpoint", json!({ "Interface": interface }))?;
    lab.host.exec("ip netns add lost")?.ok()?;
    let joined = call("Join", json!({ "SandboxKey": "/run/netns/lost" }))?;
    let name = joined.pointer("/InterfaceName/SrcName");
    let link = name.and_then(Value::as_str);
    let link = link.with_context(|| format!("no name of a link: {joined}"))?;
    let binding = json!({ "Proto": 6, "IP": "", "Port": 80, "HostIP": "", "HostPort": port,
        "HostPortEnd": port });
    let options = json!({ "Options": { "com.docker.network.portmap": [binding] } });
    call("ProgramExternalConnectivity", options)?;
    // As the end of a container does: its links go with its namespace.
    lab.host
        .exec(&format!("ip link set {link} netns lost"))?
        .ok()?;
    lab.host.exec("ip netns delete lost")?.ok()?;
    Ok((network, endpoint))
}

fn left_behind(lab: &mut Lab) -> Result<()> {
    lab.network("blue", "--subnet 10.20.0.0/24")?;
    let pool = pool_reference(&lab.host, "10.20.0.0/24")?;
    let address = json!({ "PoolID": pool, "Address": "10.20.0.77", "Options": {} }).to_string();
    lab.host.plugin("IpamDriver.RequestAddress", &address)?;
    let (network, endpoint) = lost_leave(lab, "10.20.0.77/24", 8404)?;
    let told = lab.host.netloom("port")?.ok()?;
    ensure!(told.contains("8404"), "the port was not published: {told}");
    lab.serve("web", "--network blue -p 8404:80")?;
    ensure!(lab.fetch_from_peer(&url(8404))? == "web", "not by the wire");
    ensure!(
        lab.fetch_from_host("http://127.0.0.1:8404/")? == "web",
        "not by loopback"
    );
    // A container that runs keeps its port.
    let second = lab
        .host
        .try_docker("run -d --name two --network blue -p 8404:80 lab")?;
    ensure!(second.code != 0, "a port was published twice");
    lab.docker("rm -f two")?;
    ensure!(lab.fetch_from_peer(&url(8404))? == "web", "it was robbed");
    // As dockerd does when it is back.
    let forget = json!({ "NetworkID": network, "EndpointID": endpoint });
    for (method, body) in [
        ("NetworkDriver.DeleteEndpoint", &forget.to_string()),
        ("IpamDriver.ReleaseAddress", &address),
    ] {
        lab.host.plugin(method, body)?;
    }
    ensure!(
        lab.fetch_from_peer(&url(8404))? == "web",
        "it went with the rest"
    );
    lab.audit_is_clean()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_port_is_found_in_the_answer() {
        assert_eq!(
            super::published("PUBLISHED TO\nweb 0.0.0.0:49153/tcp 10.0.0.2:80"),
            Some(49153)
        );
        assert_eq!(super::published("nothing is published"), None);
    }
}
