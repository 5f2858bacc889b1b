//! Consul.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use netloom_core::StoreTransport;
use serde_json::{Value, json};

use super::http::Request;
use super::site::{Program, Site, TOKEN};
use super::tools::{self, Tool};

/// May do everything; known to servers from their start, so that one that is started anew on an
/// older state knows it too.
const MANAGEMENT: &str = "f3c8a1a2-9d0f-4f0e-8a43-6a1f2a4d8b10";
const MANAGEMENT_HEADER: &str = "X-Consul-Token: f3c8a1a2-9d0f-4f0e-8a43-6a1f2a4d8b10";

/// What the clients' token is good for.
const RULES: &str = r#"key_prefix "" { policy = "write" } session_prefix "" { policy = "write" }
    node_prefix "" { policy = "read" }"#;

#[derive(Debug)]
pub(super) struct Consul;

impl Program for Consul {
    fn command(&self, site: &Site, member: usize) -> Result<Command> {
        let program = tools::unpacked(Tool::Consul)?;
        let (listen, ports) = (site.options.listen.to_string(), site.ports(member)?);
        let mut command = site.command(&program);
        command.args(["agent", "-server", "-log-level", "warn"]);
        command.arg(format!("-bootstrap-expect={}", site.members.len()));
        command.args(["-node", &format!("m{member}")]);
        command.arg("-data-dir").arg(site.member_data(member));
        command.args(["-bind", &listen, "-client", &listen]);
        let mut port = |name: &str, port: u16| {
            command.args([format!("-{name}-port"), port.to_string()]);
        };
        port("http", ports.control);
        port("server", ports.peer);
        port("serf-lan", ports.vote);
        if site.options.transport == StoreTransport::Tls {
            port("https", ports.client);
        }
        for off in ["-dns-port", "-grpc-port", "-serf-wan-port"] {
            command.args([off, "-1"]);
        }
        if site.members.len() > 1 {
            for other in &site.members {
                let address = format!("{}:{}", site.host(), other.vote);
                command.args(["-retry-join", &address]);
            }
            command.args(["-retry-interval", "1s"]);
        }
        command.args(["-hcl", &settings(site)]);
        command.args(&site.options.more);
        Ok(command)
    }

    fn answers(&self, site: &Site, member: usize) -> Result<()> {
        // The key is not there, which only a leader that is sure of its office says.
        let path = "/v1/kv/netloom-lab-is-not-there?consistent";
        let request = with_token(Request::get(path));
        let (status, body) = request.send(site.dial(member)?)?;
        ensure!(status == 404, "Consul says {status}: {body}");
        Ok(())
    }

    fn leads(&self, site: &Site, member: usize) -> Result<bool> {
        let answer = with_token(Request::get("/v1/status/leader")).ok(site.dial(member)?)?;
        let leader: String = serde_json::from_str(&answer)?;
        let own = format!("{}:{}", site.host(), site.ports(member)?.peer);
        Ok(leader == own)
    }

    fn require_login(&self, site: &Site) -> Result<()> {
        put(site, "acl/policy", &json!({"Name": "keys", "Rules": RULES}))?;
        put(
            site,
            "acl/token",
            &json!({"SecretID": TOKEN, "Policies": [{"Name": "keys"}]}),
        )?;
        Ok(())
    }
}

/// Shows the token of the management, which servers that want no login do not look at.
const fn with_token(request: Request<'_>) -> Request<'_> {
    Request {
        header: MANAGEMENT_HEADER,
        ..request
    }
}

fn settings(site: &Site) -> String {
    let ttl = site.options.session_ttl_min.as_millis();
    let mut hcl = format!(
        "session_ttl_min = \"{ttl}ms\" performance {{ raft_multiplier = 1 }} \
         limits {{ http_max_conns_per_client = 2000 }} disable_update_check = true"
    );
    if let Some(certs) = &site.certs {
        hcl += &format!(
            " verify_incoming_https = true ca_file = {:?} cert_file = {:?} key_file = {:?}",
            certs.ca, certs.server.cert, certs.server.key
        );
    }
    if site.options.login {
        hcl += &format!(
            " acl {{ enabled = true default_policy = \"deny\" \
             tokens {{ master = {MANAGEMENT:?} agent = {MANAGEMENT:?} }} }}"
        );
    }
    hcl
}

fn put(site: &Site, path: &str, body: &Value) -> Result<Value> {
    let (path, body) = (format!("/v1/{path}"), body.to_string());
    let request = with_token(Request {
        method: "PUT",
        path: &path,
        header: "",
        body: &body,
    });
    let answer = request.ok(site.dial_patiently(0)?)?;
    serde_json::from_str(&answer).with_context(|| format!("Consul says {answer}"))
}
