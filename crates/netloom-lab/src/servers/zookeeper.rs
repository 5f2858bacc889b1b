//! ZooKeeper.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use netloom_core::StoreTransport;

use super::http::ask;
use super::site::{PASSWORD, Program, Site, USER};
use super::tools;

/// Debian's ZooKeeper; its own class path names too few of netty's parts for TLS.
const JARS: [&str; 4] = ["zookeeper", "netty-all", "netty-codec", "netty-resolver"];

#[derive(Debug)]
pub(super) struct ZooKeeper;

impl Program for ZooKeeper {
    fn command(&self, site: &Site, member: usize) -> Result<Command> {
        let java = tools::installed("java")?;
        let jars = JARS.map(|name| format!("/usr/share/java/{name}.jar"));
        ensure!(
            PathBuf::from(&jars[0]).exists(),
            "zookeeper is not installed; run `cargo xtask setup`"
        );
        let config = configure(site, member)?;
        let mut command = site.command(&java);
        command.args(["-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        if site.options.login {
            let jaas = site.dir.path().join("jaas");
            fs::write(
                &jaas,
                format!(
                    "Server {{ org.apache.zookeeper.server.auth.DigestLoginModule required \
                     user_{USER}={PASSWORD:?}; }};\n"
                ),
            )?;
            let jaas = jaas.display();
            command.arg(format!("-Djava.security.auth.login.config={jaas}"));
        }
        command.args(["-cp", &format!("/etc/zookeeper/conf:{}", jars.join(":"))]);
        command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain");
        command.arg(config);
        Ok(command)
    }

    fn answers(&self, site: &Site, member: usize) -> Result<()> {
        mode(site, member).map(drop)
    }

    fn leads(&self, site: &Site, member: usize) -> Result<bool> {
        Ok(matches!(
            mode(site, member)?.as_str(),
            "leader" | "standalone"
        ))
    }

    /// The servers have it from their start.
    fn require_login(&self, _: &Site) -> Result<()> {
        Ok(())
    }
}

/// What a server says that it is; one that serves nobody says nothing.
fn mode(site: &Site, member: usize) -> Result<String> {
    let answer = ask(site.dial(member)?, "srvr")?;
    let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
    Ok(mode
        .with_context(|| format!("ZooKeeper says {answer:?}"))?
        .to_owned())
}

fn configure(site: &Site, member: usize) -> Result<PathBuf> {
    let data = site.member_data(member);
    fs::create_dir_all(&data)?;
    fs::write(data.join("myid"), (member + 1).to_string())?;
    let (listen, ports) = (site.options.listen, site.ports(member)?);
    let mut text = format!(
        "tickTime=500\ninitLimit=20\nsyncLimit=10\ndataDir={}\nclientPort={}\n\
         clientPortAddress={listen}\nadmin.enableServer=false\n4lw.commands.whitelist=*\n\
         extendedTypesEnabled=true\nmaxClientCnxns=0\n",
        data.display(),
        ports.control,
    );
    if let (Some(certs), StoreTransport::Tls) = (&site.certs, site.options.transport) {
        writeln!(
            text,
            "secureClientPort={}\nsecureClientPortAddress={listen}\n\
             serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
             ssl.keyStore.location={}\nssl.keyStore.type=PEM\n\
             ssl.trustStore.location={}\nssl.trustStore.type=PEM\nssl.clientAuth=need",
            ports.client,
            certs.server.both.display(),
            certs.ca.display(),
        )?;
    }
    if site.options.login {
        text += "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n\
                 sessionRequireClientSASLAuth=true\n";
    }
    if site.members.len() > 1 {
        for (other, ports) in site.members.iter().enumerate() {
            let host = site.host();
            writeln!(
                text,
                "server.{}={host}:{}:{}",
                other + 1,
                ports.peer,
                ports.vote
            )?;
        }
    }
    for line in &site.options.more {
        writeln!(text, "{line}")?;
    }
    let path = site.dir.path().join(format!("m{member}.cfg"));
    fs::write(&path, text)?;
    Ok(path)
}
