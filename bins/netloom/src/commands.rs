//! From arguments to calls of the local API, and from answers to output.

use crate::args::{AddressCommand, Cli, Command, EndpointCommand, NetworkCommand, PoolCommand};
use crate::{Verdict, args, cluster, documents, render, store};
use anyhow::{Context, bail};
use netloom_api::{
    AuditReport, AuditRequest, Client, CreateNetwork, Health, Pool, Reservation, UninstallRequest,
};
use serde::Serialize;
use std::io::Write;

/// Whether people or programs read the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Text,
    Json,
}

impl Output {
    /// Prints `value` as JSON, or as the text that `render` makes of it.
    pub(crate) fn print<T: Serialize>(
        self,
        value: &T,
        render: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<Verdict> {
        let text = match self {
            Self::Text => render(value),
            Self::Json => format!("{}\n", serde_json::to_string_pretty(value)?),
        };
        put(text.as_bytes())?;
        Ok(Verdict::Fine)
    }

    /// Says in one line that it was done; programs get an empty object.
    pub(crate) fn done(self, line: &str) -> anyhow::Result<Verdict> {
        put(match self {
            Self::Text => format!("{line}\n"),
            Self::Json => "{}\n".to_owned(),
        }
        .as_bytes())?;
        Ok(Verdict::Fine)
    }
}

/// Writes to standard output; a reader that left early (`| head`) is no error.
fn put(bytes: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

pub(crate) async fn run(cli: Cli) -> anyhow::Result<Verdict> {
    let client = Client::new(&cli.socket);
    let output = if cli.json { Output::Json } else { Output::Text };
    match cli.command {
        Command::Status => {
            let status = client.status().await?;
            output.print(&status, render::status)?;
            let all_answer = status.docker.is_some() && status.relay != Health::Down;
            Ok(if status.findings.is_empty() && all_answer {
                Verdict::Fine
            } else {
                Verdict::Findings
            })
        }
        Command::Network(command) => network(&client, output, command).await,
        Command::Endpoint(command) => endpoint(&client, output, command).await,
        Command::Pool(command) => pool(&client, output, command).await,
        Command::Address(command) => address(&client, output, command).await,
        Command::Cluster(command) => cluster::cluster(&client, output, command).await,
        Command::Host(command) => cluster::host(&client, output, command).await,
        Command::Store(command) => store::run(output, command).await,
        Command::Port { container } => ports(&client, output, container.as_deref()).await,
        Command::Audit { repair } => report(
            output,
            &client.audit(AuditRequest { repair }).await?,
            "everything agrees",
        ),
        Command::Doctor => report(output, &client.doctor().await?, "this host is well"),
        Command::Uninstall { force } => {
            let removed = client.uninstall(UninstallRequest { force }).await?;
            output.print(&removed, render::removed)
        }
        Command::Openapi => output.print(&client.openapi(), |document| format!("{document:#}\n")),
        Command::Completions { shell } => {
            put(&documents::completions(shell))?;
            Ok(Verdict::Fine)
        }
        Command::Man { directory } => {
            let count = documents::man(&directory)?;
            output.done(&format!(
                "{count} man pages written to {}",
                directory.display()
            ))
        }
    }
}

async fn network(
    client: &Client,
    output: Output,
    command: NetworkCommand,
) -> anyhow::Result<Verdict> {
    match command {
        NetworkCommand::Ls => output.print(&client.networks().await?, |networks| {
            render::networks(networks)
        }),
        NetworkCommand::Inspect { network } => {
            output.print(&client.network(&network).await?, render::network)
        }
        NetworkCommand::Create(wish) => {
            let made = client.create_network(&create(wish)).await?;
            output.print(&made, |network| format!("{}\n", network.id))
        }
        NetworkCommand::Rm { network } => {
            client.remove_network(&network).await?;
            output.done(&format!("network {network} is removed"))
        }
    }
}

fn create(wish: args::CreateNetwork) -> CreateNetwork {
    let args::CreateNetwork {
        name,
        subnets,
        gateways,
        ranges,
        internal,
        ipv6,
        options,
    } = wish;
    let options = options.into_iter().collect();
    CreateNetwork {
        name,
        subnets,
        gateways,
        ranges,
        internal,
        ipv6,
        options,
    }
}

async fn endpoint(
    client: &Client,
    output: Output,
    command: EndpointCommand,
) -> anyhow::Result<Verdict> {
    match command {
        EndpointCommand::Ls { network } => {
            let mut endpoints = client.endpoints().await?;
            if let Some(wanted) = network {
                let network = client.network(&wanted).await?;
                endpoints.retain(|endpoint| endpoint.network == network.id);
            }
            output.print(&endpoints, |endpoints| render::endpoints(endpoints))
        }
        EndpointCommand::Inspect { endpoint } => {
            output.print(&client.endpoint(&endpoint).await?, render::endpoint)
        }
    }
}

/// A pool with its addresses, as `pool inspect` shows it.
#[derive(Debug, Serialize)]
struct PoolDetail {
    #[serde(flatten)]
    pool: Pool,
    addresses: Vec<netloom_api::Address>,
}

async fn pool(client: &Client, output: Output, command: PoolCommand) -> anyhow::Result<Verdict> {
    match command {
        PoolCommand::Ls => output.print(&client.pools().await?, |pools| render::pools(pools)),
        PoolCommand::Inspect { subnet } => {
            let pools = client.pools().await?;
            let Some(pool) = pools.into_iter().find(|pool| pool.subnet == subnet) else {
                bail!("there is no pool {subnet}; `netloom pool ls` lists them");
            };
            let addresses = client.addresses(Some(&subnet)).await?;
            output.print(&PoolDetail { pool, addresses }, |detail| {
                render::pool(&detail.pool, &detail.addresses)
            })
        }
    }
}

async fn address(
    client: &Client,
    output: Output,
    command: AddressCommand,
) -> anyhow::Result<Verdict> {
    match command {
        AddressCommand::Ls { subnet } => output
            .print(&client.addresses(subnet.as_deref()).await?, |found| {
                render::addresses(found)
            }),
        AddressCommand::Reserve(args::Reserve { ip, holder }) => {
            let args::Holder {
                mac,
                name,
                container,
            } = holder;
            let reservation = Reservation {
                ip: ip.clone(),
                mac,
                name,
                container,
            };
            client.reserve(&reservation).await?;
            output.done(&format!("{ip} is reserved"))
        }
        AddressCommand::Release { ip } => {
            client.unreserve(&ip).await?;
            output.done(&format!("{ip} is no longer reserved"))
        }
    }
}

async fn ports(
    client: &Client,
    output: Output,
    container: Option<&str>,
) -> anyhow::Result<Verdict> {
    let mut ports = client.ports().await?;
    if let Some(wanted) = container {
        let endpoint = client.endpoint(wanted).await?;
        let name = endpoint.container.as_deref();
        ports.retain(|port| {
            port.endpoint == endpoint.id || (name.is_some() && port.container.as_deref() == name)
        });
    }
    output.print(&ports, |ports| render::ports(ports))
}

fn report(output: Output, report: &AuditReport, all_well: &str) -> anyhow::Result<Verdict> {
    output.print(report, |report| render::report(report, all_well))?;
    Ok(if report.findings.is_empty() {
        Verdict::Fine
    } else {
        Verdict::Findings
    })
}
