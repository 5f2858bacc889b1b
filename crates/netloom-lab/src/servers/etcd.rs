//! etcd.

use std::process::Command;

use anyhow::{Result, ensure};
use netloom_core::StoreTransport;
use serde_json::{Value, json};

use super::http::Request;
use super::options::EtcdVersion;
use super::site::{PASSWORD, Program, Site, USER};
use super::tools::{self, Tool};

#[derive(Debug)]
pub(super) struct Etcd;

impl Program for Etcd {
    fn command(&self, site: &Site, member: usize) -> Result<Command> {
        let program = match site.options.etcd {
            EtcdVersion::Debian34 => tools::installed("etcd")?,
            EtcdVersion::Sid35 => tools::unpacked(Tool::Etcd35)?,
        };
        let (host, ports) = (site.host(), site.ports(member)?);
        let mut command = site.command(&program);
        let mut option = |name: &str, value: &str| {
            command.arg(format!("--{name}={value}"));
        };
        option("name", &format!("m{member}"));
        option("data-dir", &site.member_data(member).display().to_string());
        let control = format!("http://{host}:{}", ports.control);
        match (&site.certs, site.options.transport) {
            (Some(certs), StoreTransport::Tls) => {
                let client = format!("https://{host}:{}", ports.client);
                option("listen-client-urls", &format!("{client},{control}"));
                option("advertise-client-urls", &client);
                option("client-cert-auth", "true");
                option("cert-file", &certs.server.cert.display().to_string());
                option("key-file", &certs.server.key.display().to_string());
                option("trusted-ca-file", &certs.ca.display().to_string());
            }
            _ => {
                option("listen-client-urls", &control);
                option("advertise-client-urls", &control);
            }
        }
        let peer = format!("http://{host}:{}", ports.peer);
        option("listen-peer-urls", &peer);
        option("initial-advertise-peer-urls", &peer);
        let cluster = site.members.iter().enumerate();
        let cluster: Vec<_> = cluster
            .map(|(other, ports)| format!("m{other}=http://{host}:{}", ports.peer))
            .collect();
        option("initial-cluster", &cluster.join(","));
        option("initial-cluster-state", "new");
        option("logger", "zap");
        option("log-level", "warn");
        command.args(&site.options.more);
        Ok(command)
    }

    fn answers(&self, site: &Site, member: usize) -> Result<()> {
        // It reads a key through the majority.
        let health = Request::get("/health").ok(site.dial(member)?)?;
        ensure!(health.contains("\"true\""), "etcd says {health}");
        Ok(())
    }

    fn leads(&self, site: &Site, member: usize) -> Result<bool> {
        // The status says it too, but not to everybody where a login is wanted.
        let metrics = Request::get("/metrics").ok(site.dial(member)?)?;
        Ok(metrics
            .lines()
            .any(|line| line == "etcd_server_is_leader 1"))
    }

    fn require_login(&self, site: &Site) -> Result<()> {
        // Somebody must be called root before logins are wanted.
        for (path, body) in [
            (
                "auth/user/add",
                json!({"name": "root", "password": PASSWORD}),
            ),
            ("auth/role/add", json!({"name": "root"})),
            ("auth/user/grant", json!({"user": "root", "role": "root"})),
            ("auth/user/add", json!({"name": USER, "password": PASSWORD})),
            ("auth/role/add", json!({"name": "keys"})),
            (
                "auth/role/grant",
                // From the byte 0 to the end, which is also written as the byte 0.
                json!({"name": "keys", "perm": {
                    "permType": "READWRITE", "key": "AA==", "range_end": "AA=="
                }}),
            ),
            ("auth/user/grant", json!({"user": USER, "role": "keys"})),
            ("auth/enable", json!({})),
        ] {
            call(site, path, &body)?;
        }
        Ok(())
    }
}

/// Calls a method by etcd's JSON gateway.
fn call(site: &Site, path: &str, body: &Value) -> Result<()> {
    let request = Request {
        method: "POST",
        path: &format!("/v3/{path}"),
        header: "",
        body: &body.to_string(),
    };
    request.ok(site.dial_patiently(0)?).map(drop)
}
