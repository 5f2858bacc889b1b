//! From Docker's words to the model's types: pure functions, one per thing.

mod address;
mod endpoint;
mod network;
mod options;
mod pool;

pub(crate) use address::plain_ip;
pub(crate) use endpoint::{endpoint_ids, endpoint_spec, port_bindings, sandbox};
pub(crate) use network::{gateway_skips, network_id, network_spec};
pub(crate) use pool::{GLOBAL_SPACE, LOCAL_SPACE, address_request, pool_id, pool_request};

/// Options of the network (`-o k=v`), inside of the options.
const GENERIC: &str = "com.docker.network.generic";
/// Ports to publish.
const PORT_MAP: &str = "com.docker.network.portmap";
