//! `docker compose` on our networks.

use std::fs;

use anyhow::{Result, ensure};

use super::{Lab, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::whole(
    "compose: up, restart and down with static addresses",
    up_restart_down,
)];

const PROJECT: &str = "
services:
  web:
    image: lab
    pull_policy: never
    stop_signal: SIGKILL
    networks:
      front: { ipv4_address: 10.40.0.10 }
    ports: ['8095:80']
    command: [sh, -c, 'echo web >/www/index.html; exec httpd -f -p 80 -h /www']
  job:
    image: lab
    pull_policy: never
    stop_signal: SIGKILL
    networks:
      front: { ipv4_address: 10.40.0.11, aliases: [worker] }
      back: {}
networks:
  front:
    driver: netloom
    ipam:
      driver: netloom
      config: [{ subnet: 10.40.0.0/24 }]
  back:
    driver: netloom
    internal: true
    ipam: { driver: netloom }
";

fn up_restart_down(lab: &mut Lab) -> Result<()> {
    fs::write(lab.host.path("/lab/compose.yaml"), PROJECT)?;
    let compose = |line: &str| lab.docker(&format!("compose -p shop -f /lab/compose.yaml {line}"));
    compose("up -d")?;
    let is_as_written = || -> Result<()> {
        ensure!(
            lab.address("shop-web-1", "shop_front")? == "10.40.0.10",
            "another address"
        );
        ensure!(
            lab.address("shop-job-1", "shop_front")? == "10.40.0.11",
            "another address"
        );
        lab.reaches("shop-job-1", "web")?;
        lab.reaches("shop-web-1", "worker")?;
        let url = format!("http://{}:8095/", netloom_lab::Peer::HOST.0);
        let answer = netloom_lab::wait_for("the web service", 10, || lab.fetch_from_peer(&url))?;
        ensure!(answer == "web", "the published port answers `{answer}`");
        Ok(())
    };
    is_as_written()?;
    compose("restart")?;
    is_as_written()?;
    compose("down")?;
    let left = lab.docker("network ls -q --filter name=shop")?;
    ensure!(left.is_empty(), "networks are left: {left}");
    Ok(())
}
