//! `cargo xtask demo`: what Netloom does, told while it happens on a real dockerd.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use netloom_lab::{Peer, Version};

use crate::e2e::{Lab, Length};
use crate::{Consent, interrupt, repo, setup, term};

/// Sets up, shows everything, and removes it all; fails where a claim of the story is not true.
pub(crate) fn run(consent: &Consent) -> Result<bool> {
    setup::run(consent, &[Version::Bookworm])?;
    term::heading("Building netloomd, netloom, netloom-holder and netloom-relay");
    repo::build_programs()?;
    if !repo::is_root() {
        return repo::again_as_root(&["demo".to_owned(), "--yes".to_owned()]);
    }
    interrupt::remove_machines_on_interrupt()?;
    netloom_lab::sweep_abandoned();
    term::heading("A Docker host of its own");
    term::say("Network, processes, /run and disk are namespaces and a temporary folder: the");
    term::say("network of this machine is not touched. A second machine stands on its wire.");
    let lab = Lab::start(Version::Bookworm, Length::Smoke)?;
    term::good(&format!(
        "dockerd {} and netloomd answer",
        lab.host.docker_version()?
    ));
    let parts: [fn(&Lab) -> Result<()>; 7] = [
        first_network,
        ports,
        internal,
        dual_stack,
        reconnect,
        killed,
        the_end,
    ];
    for part in parts {
        if let Err(e) = part(&lab) {
            lab.last_words();
            return Err(e);
        }
    }
    drop(lab);
    term::heading("Done");
    term::say(
        "The host, its dockerd and its disk are removed, too. `cargo xtask test` proves more.",
    );
    Ok(true)
}

/// Shows a `docker` command line and runs it.
fn docker(lab: &Lab, line: &str) -> Result<String> {
    show(&format!("docker {line}"));
    lab.docker(line)
}

fn show(line: &str) {
    term::say(&term::bold(&format!("$ {line}")));
}

const OURS: &str = "-d netloom --ipam-driver netloom";

fn first_network(lab: &Lab) -> Result<()> {
    term::heading("A network, two containers, a static address");
    docker(
        lab,
        &format!("network create {OURS} --subnet 10.9.0.0/24 blue"),
    )?;
    let serve = "sh -c 'hostname >/www/index.html; exec httpd -f -p 80 -h /www'";
    let ports = "-p 8080:80 -p 8053:80/udp -p 8100-8102:80 -p 80";
    docker(
        lab,
        &format!(
            "run -d --name web --hostname web --network blue --ip 10.9.0.80 {ports} lab {serve}"
        ),
    )?;
    docker(lab, "run -d --name client --network blue lab")?;
    docker(lab, "exec client ping -c 1 10.9.0.80")?;
    docker(lab, "exec client ping -c 1 web")?;
    let page = docker(lab, "exec client wget -q -O - http://web/")?;
    ensure!(page == "web", "the server answered `{page}`");
    term::good("reached by address and by name; web has the address that was asked for");
    Ok(())
}

fn ports(lab: &Lab) -> Result<()> {
    term::heading("Published ports: fixed, random, a range, TCP and UDP");
    show("netloom port web");
    term::aside(&lab.host.netloom("port web")?.ok()?);
    let url = format!("http://{}:8080/", Peer::HOST.0);
    show(&format!("wget {url}     (on the other machine)"));
    ensure!(
        lab.fetch_from_peer(&url)? == "web",
        "no answer to the other machine"
    );
    show("wget http://127.0.0.1:8080/     (on the host)");
    ensure!(
        lab.fetch_from_host("http://127.0.0.1:8080/")? == "web",
        "no answer by 127.0.0.1"
    );
    lab.echo_udp("web")?;
    let ask = format!(
        "bash -c 'exec 3<>/dev/udp/{}/8053; echo hello >&3; timeout 3 head -n 1 <&3'",
        Peer::HOST.0
    );
    show("echo hello >/dev/udp/192.0.2.1/8053     (on the other machine)");
    ensure!(
        lab.peer.exec(&ask)?.stdout == "hello",
        "no datagram came back"
    );
    lab.host.stop("echo", "KILL")?;
    term::good("every published port answers, from the wire and from the host itself");
    Ok(())
}

fn internal(lab: &Lab) -> Result<()> {
    term::heading("An internal network");
    docker(lab, &format!("network create {OURS} --internal vault"))?;
    docker(lab, "run -d --name safe --network vault lab")?;
    show(&format!(
        "docker exec safe ping {}     (must fail)",
        Peer::SELF.0
    ));
    lab.is_cut_off("safe", Peer::SELF.0)?;
    term::good("no way out of it");
    Ok(())
}

fn dual_stack(lab: &Lab) -> Result<()> {
    term::heading("IPv4 and IPv6");
    docker(
        lab,
        &format!("network create {OURS} --ipv6 --subnet 10.10.0.0/24 --subnet fd00:10::/64 both"),
    )?;
    docker(lab, "run -d --name six --network both lab")?;
    docker(
        lab,
        "run -d --name seven --network both --ip6 fd00:10::77 lab",
    )?;
    docker(lab, "exec six ping -6 -c 1 fd00:10::77")?;
    docker(lab, &format!("exec six ping -6 -c 1 {}", Peer::SELF.1))?;
    term::good("both families reach neighbours and the world");
    Ok(())
}

fn reconnect(lab: &Lab) -> Result<()> {
    term::heading("Disconnect and connect");
    docker(lab, "network disconnect blue client")?;
    docker(lab, "network connect both client")?;
    docker(lab, "exec client ping -c 1 six")?;
    docker(lab, "network connect blue client")?;
    docker(lab, "exec client ping -c 1 web")?;
    term::good("a running container moves between networks");
    Ok(())
}

fn killed(lab: &Lab) -> Result<()> {
    term::heading("The daemon is killed in the middle of a ping");
    let line = "exec client ping -q -c 40 -i 0.1 10.9.0.80";
    show(&format!("docker {line} &"));
    let mut ping = lab.host.enter();
    ping.args(["docker"])
        .args(line.split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let ping = ping.spawn().context("could not start the ping")?;
    show("kill -9 $(pidof netloomd)");
    lab.host.kill_netloom_daemon()?;
    docker(lab, "run -d --name late --network blue lab")?;
    let said = ping.wait_with_output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    term::aside(said.trim());
    ensure!(said.contains(" 0% packet loss"), "packets were lost");
    lab.host.wait_for_netloom()?;
    lab.reaches("late", "web")?;
    term::good("not a packet lost, and a `docker run` that came meanwhile has its network");
    Ok(())
}

fn the_end(lab: &Lab) -> Result<()> {
    term::heading("Everything is removed");
    docker(lab, "rm -f web client safe six seven late")?;
    docker(lab, "network rm blue vault both")?;
    show("netloom audit");
    let audit = netloom_lab::wait_for("a clean audit", 10, || lab.host.netloom("audit")?.ok())?;
    term::aside(&audit);
    show("netloom uninstall");
    lab.leaves_no_trace()?;
    term::good("no link, rule, namespace or address of ours is left on the host");
    Ok(())
}
