//! The command line, as data: help, completions and man pages are made of it.

use clap::{Args, Parser, Subcommand, ValueHint};
use netloom_core::StoreUrl;
use std::path::PathBuf;

/// Container networks for plain Docker hosts.
#[derive(Debug, Parser)]
#[command(
    name = "netloom",
    version,
    about,
    max_term_width = 100,
    after_help = "Examples:
  netloom status                     is all well?
  netloom port web                   where are web's ports published?
  netloom pool inspect 10.9.0.0/24   how full is it, and who has which address?
  netloom audit                      do records, journal, kernel and Docker agree?
  netloom doctor                     what is wrong with this host, and how is it mended?
  netloom host ls                    who shares the store, and how much has each?

Exit codes: 0 all is well, 1 it failed, 2 wrong command line, 3 something was found."
)]
pub(crate) struct Cli {
    /// The daemon's socket
    #[arg(
        long,
        global = true,
        env = "NETLOOM_SOCKET",
        default_value = "/run/netloom/api.sock",
        value_name = "PATH",
        value_hint = ValueHint::FilePath
    )]
    pub(crate) socket: PathBuf,

    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say how the daemon is
    Status,
    /// Networks: list, inspect, create, remove
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Endpoints (a container on a network): list, inspect
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Address pools: list, inspect with a picture of how full they are
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Addresses: list, reserve, release
    #[command(subcommand)]
    Address(AddressCommand),
    /// The store that hosts share: initialise it, say how this host stands to it
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Hosts that share the store: list, inspect, forget
    #[command(subcommand)]
    Host(HostCommand),
    /// A store's records: check them, print them, copy them to another store; needs no daemon
    #[command(subcommand)]
    Store(StoreCommand),
    /// Show published ports, of one container or of all
    #[command(
        after_help = "Docker itself shows no ports of remote drivers in `docker ps`.

Examples:
  netloom port
  netloom port web"
    )]
    Port {
        /// The container's name, or an endpoint id
        container: Option<String>,
    },
    /// Compare records, journal, kernel and Docker
    #[command(
        after_help = "Without --repair nothing is changed. Exit code 3 when something was found.

Examples:
  netloom audit
  netloom audit --repair
  netloom audit --json | jq -r '.findings[].kind'"
    )]
    Audit {
        /// Also mend what can be mended without harm
        #[arg(long)]
        repair: bool,
    },
    /// Say what is wrong with this host, and how to mend it
    #[command(after_help = "Exit code 3 when something was found.")]
    Doctor,
    /// Remove everything of Netloom's from this host's kernel
    #[command(
        after_help = "Removes links, bridges, rules and published ports. Records and the journal stay in the \
state directory; remove that by hand when it is no longer needed. Refused while containers are \
attached, unless forced: they lose their network.

Examples:
  netloom uninstall
  netloom uninstall --force"
    )]
    Uninstall {
        /// Also while containers are attached
        #[arg(long)]
        force: bool,
    },
    /// Print the local API's OpenAPI document; needs no daemon
    Openapi,
    /// Print completions for a shell; needs no daemon
    #[command(after_help = "Example:
  netloom completions bash > /etc/bash_completion.d/netloom")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory; needs no daemon
    #[command(after_help = "Example:
  netloom man /usr/local/share/man/man1")]
    Man {
        /// The directory
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// List networks
    Ls,
    /// Show everything about one network
    Inspect {
        /// Its name or id
        network: String,
    },
    /// Make a network, through Docker
    Create(CreateNetwork),
    /// Remove a network, through Docker
    Rm {
        /// Its name or id
        network: String,
    },
}

#[derive(Debug, Args)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "flags of a command line are what they are"
)]
#[command(
    after_help = "The same as `docker network create -d netloom --ipam-driver netloom ...`, in one place.

Examples:
  netloom network create blue
  netloom network create blue --subnet 10.9.0.0/24 --gateway 10.9.0.1 --range 10.9.0.128/25
  netloom network create six --subnet 10.8.0.0/24 --subnet fd00:8::/64
  netloom network create flat -o netloom.mtu=9000 -o netloom.icc=false"
)]
pub(crate) struct CreateNetwork {
    /// Its name
    pub(crate) name: String,
    /// A subnet, such as 10.9.0.0/24; may be given again, and once for IPv6
    #[arg(long = "subnet", value_name = "SUBNET")]
    pub(crate) subnets: Vec<String>,
    /// The gateway of the subnet at the same place
    #[arg(long = "gateway", value_name = "IP")]
    pub(crate) gateways: Vec<String>,
    /// Hand out only from this part of the subnet at the same place
    #[arg(long = "range", value_name = "SUBNET")]
    pub(crate) ranges: Vec<String>,
    /// No way in or out
    #[arg(long)]
    pub(crate) internal: bool,
    /// With IPv6, from a default pool where no IPv6 subnet is given
    #[arg(long)]
    pub(crate) ipv6: bool,
    /// An option of the driver, such as netloom.mtu=1400
    #[arg(short = 'o', long = "opt", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) options: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// List endpoints
    Ls {
        /// Only of this network (name or id)
        #[arg(long)]
        network: Option<String>,
    },
    /// Show everything about one endpoint
    Inspect {
        /// Its id, or its container's name
        endpoint: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// List pools
    Ls,
    /// Show a pool: how full it is, and who has which address
    Inspect {
        /// Its subnet, such as 10.9.0.0/24
        subnet: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AddressCommand {
    /// List the addresses that are not free
    Ls {
        /// Only of this pool, such as 10.9.0.0/24
        subnet: Option<String>,
    },
    /// Keep an address for somebody
    #[command(
        after_help = "A reserved address is never handed out by itself; an explicit `--ip` always gets it.

Examples:
  netloom address reserve 10.9.0.80                                for `--ip` alone
  netloom address reserve 10.9.0.80 --mac 02:42:0a:09:00:50        for --mac-address
  netloom address reserve 10.9.0.80 --container web                for this container, every start
  netloom address reserve 10.9.0.80 --name web                     by name, from Docker 29 on"
    )]
    Reserve(Reserve),
    /// End a reservation; an address in use stays in use
    Release {
        /// The address
        ip: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Initialise the store that the daemon is configured with
    #[command(
        after_help = "Once in the life of a store, on one of its hosts. No daemon does it by itself: a store that
is empty may be one that lost what it held. After such a loss, this command says that the hosts
shall go on with it; each writes again what it owns.

Example:
  netloom cluster init"
    )]
    Init,
    /// Say how this host stands to the store
    #[command(after_help = "Exit code 3 when the host cannot take part in full.")]
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostCommand {
    /// List the hosts on record
    Ls,
    /// Show everything about one host
    Inspect {
        /// Its id
        host: String,
    },
    /// Declare a host gone for ever, and free the addresses that it owned
    #[command(
        after_help = "Nothing else ever takes addresses from a host: not silence, not time. Be sure that it is gone:
if it still runs, it may hand out the same addresses. Its id is never accepted again.

Examples:
  netloom host forget 4f0c21d09e3a
  netloom host forget 4f0c21d09e3a --yes       without being asked"
    )]
    Forget {
        /// Its id
        host: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Check that every record can be read, and that they agree
    #[command(after_help = "Exit code 3 when something was found.

Example:
  netloom store check etcd://10.0.0.1:2379/netloom")]
    Check {
        /// The store, such as etcd://10.0.0.1:2379/netloom
        url: StoreUrl,
        #[command(flatten)]
        access: Access,
    },
    /// Print every record, one JSON object a line
    Dump {
        /// The store
        url: StoreUrl,
        #[command(flatten)]
        access: Access,
    },
    /// Move a cluster to another store: the old one is fenced first, then all records are copied
    #[command(
        after_help = "From the first moment on nobody can change the old store any more: its hosts go on from the
addresses that they own, and say that the cluster moved. Name the new store in their settings and
restart netloomd on each. A copy that was cut off is made again with the same words, and goes on.

Example:
  netloom store copy consul://127.0.0.1/netloom etcd://10.0.0.1:2379,10.0.0.2:2379/netloom"
    )]
    Copy {
        /// The store to leave
        from: StoreUrl,
        /// The store to go to; it must be empty
        to: StoreUrl,
        #[command(flatten)]
        access: Access,
        /// The new store's certificates to trust, where they are others than the old one's
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        to_ca: Option<PathBuf>,
    },
}

/// How to get into a store that is not a file.
#[derive(Debug, Clone, Args)]
pub(crate) struct Access {
    /// Certificates (PEM) that the server is checked with
    #[arg(long, value_name = "FILE", env = "NETLOOM_STORE_CA", value_hint = ValueHint::FilePath)]
    pub(crate) ca: Option<PathBuf>,
    /// The certificate (PEM) to show
    #[arg(
        long,
        value_name = "FILE",
        env = "NETLOOM_STORE_CERT",
        requires = "key"
    )]
    pub(crate) cert: Option<PathBuf>,
    /// The key (PEM) of that certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "NETLOOM_STORE_KEY",
        requires = "cert"
    )]
    pub(crate) key: Option<PathBuf>,
    /// The user to be (etcd, ZooKeeper)
    #[arg(
        long,
        value_name = "NAME",
        env = "NETLOOM_STORE_USER",
        requires = "password_file"
    )]
    pub(crate) user: Option<String>,
    /// The file with that user's password
    #[arg(
        long,
        value_name = "FILE",
        env = "NETLOOM_STORE_PASSWORD_FILE",
        requires = "user"
    )]
    pub(crate) password_file: Option<PathBuf>,
    /// The file with the token to show (Consul)
    #[arg(
        long,
        value_name = "FILE",
        env = "NETLOOM_STORE_TOKEN_FILE",
        conflicts_with = "user"
    )]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Reserve {
    /// The address
    pub(crate) ip: String,
    #[command(flatten)]
    pub(crate) holder: Holder,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Holder {
    /// For containers with this link address
    #[arg(long)]
    pub(crate) mac: Option<String>,
    /// For containers of this name (Docker 29 and later)
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// For this created or stopped container
    #[arg(long)]
    pub(crate) container: Option<String>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE, such as netloom.mtu=1400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_reservation_has_one_holder() {
        let two = [
            "netloom",
            "address",
            "reserve",
            "10.9.0.8",
            "--name",
            "a",
            "--container",
            "b",
        ];
        assert!(Cli::try_parse_from(two).is_err());
    }
}
