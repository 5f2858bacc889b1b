//! Pools and addresses.

use super::address;
use super::options::ipam_options;
use crate::failure::Failure;
use crate::wire::{RequestAddressRequest, RequestPoolRequest};
use netloom_core::{AddressRequest, AddressSpace, Options, PoolRequest, Purpose, WantedPool};
use netloom_types::{Family, PoolId, Subnet};
use tracing::debug;

/// Docker keeps these names in its database for the life of a network: they never change.
pub(crate) const LOCAL_SPACE: &str = "NetloomLocal";
/// As above, for pools that hosts share.
pub(crate) const GLOBAL_SPACE: &str = "NetloomGlobal";

/// The wanted prefix length, for Dockers that cannot say `--subnet 0.0.0.0/24`. A network with both
/// families sends the same options with both of its requests, hence one name for each.
const SIZE_V4: &str = "netloom.size";
const SIZE_V6: &str = "netloom.size_ipv6";

/// All IPAM options; the last names the network that pools of several hosts belong to.
const IPAM_OPTIONS: [&str; 3] = [SIZE_V4, SIZE_V6, "netloom.network"];

/// Longer than any name that Docker lets a container have.
const NAME_BYTES_MAX: usize = 255;

/// A pool id as Docker gives it back.
pub(crate) fn pool_id(text: String) -> Result<PoolId, Failure> {
    PoolId::new(text).map_err(Failure::bad_body)
}

/// A pool as Docker asks for it.
pub(crate) fn pool_request(request: RequestPoolRequest) -> Result<PoolRequest, Failure> {
    let RequestPoolRequest {
        address_space,
        pool,
        sub_pool,
        options,
        v6,
    } = request;
    let space = match address_space.as_str() {
        LOCAL_SPACE => AddressSpace::Local,
        GLOBAL_SPACE => AddressSpace::Global,
        // Docker always sends the name that it was given; without one this is no request for a pool.
        "" => return Err(Failure::bad_body("AddressSpace is missing")),
        other => {
            return Err(Failure::refused(format!(
                "the address space {:?} is not netloom's; {LOCAL_SPACE} and {GLOBAL_SPACE} are",
                other.chars().take(80).collect::<String>()
            )));
        }
    };
    let mut options = ipam_options(&options, &IPAM_OPTIONS)?;
    let size_v4 = size(&mut options, SIZE_V4, Family::V4)?;
    let size_v6 = size(&mut options, SIZE_V6, Family::V6)?;
    let (family, size) = if v6 {
        (Family::V6, size_v6)
    } else {
        (Family::V4, size_v4)
    };
    let wanted = match (pool.is_empty(), sub_pool.is_empty(), size) {
        (false, _, _) => stated(&pool, &sub_pool, family)?,
        (true, false, _) => {
            return Err(Failure::refused("an IP range needs a subnet: add --subnet"));
        }
        (true, true, Some(bits)) => WantedPool::Sized(family, bits),
        (true, true, None) => WantedPool::Any(family),
    };
    Ok(PoolRequest {
        space,
        wanted,
        options,
    })
}

/// A pool that is named by its subnet, or by the unspecified address and a length (Docker 29).
fn stated(pool: &str, range: &str, family: Family) -> Result<WantedPool, Failure> {
    let subnet: Subnet = pool.parse()?;
    // Clients other than dockerd leave V6 out where the subnet says it.
    if family == Family::V6 && subnet.family() == Family::V4 {
        return Err(Failure::bad_body(format!(
            "{subnet} is asked for as an IPv6 pool"
        )));
    }
    if subnet.prefix_len() == 0 {
        return Err(Failure::refused(format!(
            "{subnet} is every address there is and cannot be a network's subnet"
        )));
    }
    let any = subnet.first().is_unspecified();
    let range: Option<Subnet> = match range {
        "" => None,
        text => Some(text.parse()?),
    };
    match range {
        Some(range) if any || !range.is_subnet_of(subnet) => Err(Failure::refused(format!(
            "the IP range {range} does not lie in the subnet {subnet}"
        ))),
        None if any => Ok(WantedPool::Sized(subnet.family(), subnet.prefix_len())),
        range => Ok(WantedPool::Exact { subnet, range }),
    }
}

fn size(options: &mut Options, name: &str, family: Family) -> Result<Option<u8>, Failure> {
    let Some(text) = options.remove(name) else {
        return Ok(None);
    };
    match text.parse::<u8>() {
        Ok(bits) if (1..=family.bits()).contains(&bits) => Ok(Some(bits)),
        _ => Err(Failure::refused(format!(
            "the IPAM option {name} is {text:?}, but must be a prefix length from 1 to {}",
            family.bits()
        ))),
    }
}

/// An address as Docker asks for it.
pub(crate) fn address_request(request: RequestAddressRequest) -> Result<AddressRequest, Failure> {
    let RequestAddressRequest {
        pool_id: pool,
        address,
        options,
    } = request;
    let pool = pool_id(pool)?;
    let option = |key: &str| {
        options
            .get(key)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
    };
    let wanted = match address.as_str() {
        "" => None,
        text => Some(address::plain_ip("address", text)?),
    };
    let purpose = match option("RequestAddressType") {
        Some("com.docker.network.gateway") => Purpose::Gateway,
        _ => Purpose::Endpoint,
    };
    let mac = match option("com.docker.network.endpoint.macaddress") {
        Some(text) => Some(text.parse()?),
        None => None,
    };
    let name = option("com.docker.network.endpoint.name").map(ToOwned::to_owned);
    Ok(AddressRequest {
        pool,
        wanted,
        purpose,
        mac,
        name: name.filter(|name| sane(name)),
    })
}

/// A name only helps to find a reservation, so an odd one is left out and nothing is refused.
fn sane(name: &str) -> bool {
    let sane = name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    if !sane {
        debug!("an endpoint name that Docker would not give is ignored");
    }
    sane
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "helpers take literals")]
mod tests {
    use super::*;
    use crate::wire::decode;
    use serde_json::{Value, json};

    fn wanted(pool: &str, range: &str, of: Family, options: Value) -> Result<WantedPool, Failure> {
        let body = json!({
            "AddressSpace": LOCAL_SPACE, "Pool": pool, "SubPool": range, "V6": of == Family::V6,
            "Options": options,
        });
        pool_request(decode(body.to_string().as_bytes())?).map(|request| request.wanted)
    }

    #[test]
    fn wishes_for_any_pool_for_a_size_and_for_a_subnet() {
        let any = wanted("", "", Family::V4, json!(null)).unwrap();
        assert_eq!(any, WantedPool::Any(Family::V4));
        let any = wanted("", "", Family::V6, json!({})).unwrap();
        assert_eq!(any, WantedPool::Any(Family::V6));
        let sized = wanted("0.0.0.0/24", "", Family::V4, json!(null)).unwrap();
        assert_eq!(sized, WantedPool::Sized(Family::V4, 24));
        let sized = wanted("::/64", "", Family::V6, json!(null)).unwrap();
        assert_eq!(sized, WantedPool::Sized(Family::V6, 64));
        let sized = wanted("", "", Family::V4, json!({"netloom.size": "24"})).unwrap();
        assert_eq!(sized, WantedPool::Sized(Family::V4, 24));
        let v6 = wanted("", "", Family::V6, json!({"netloom.size": "24"})).unwrap();
        assert_eq!(v6, WantedPool::Any(Family::V6));
        let exact = wanted("10.9.0.0/16", "10.9.8.0/24", Family::V4, json!(null)).unwrap();
        let range = Some("10.9.8.0/24".parse().unwrap());
        let subnet = "10.9.0.0/16".parse().unwrap();
        assert_eq!(exact, WantedPool::Exact { subnet, range });
    }

    #[test]
    fn wishes_that_cannot_be_are_refused() {
        for (pool, range, of) in [
            ("10.9.0.1/16", "", Family::V4),
            ("0.0.0.0/0", "", Family::V4),
            ("10.9.0.0/16", "10.8.0.0/24", Family::V4),
            ("0.0.0.0/24", "0.0.0.0/25", Family::V4),
            ("", "10.9.0.0/24", Family::V4),
            ("10.9.0.0/16", "", Family::V6),
            ("10.9.0.0", "", Family::V4),
        ] {
            let odd = wanted(pool, range, of, json!(null));
            assert!(odd.is_err(), "{pool:?} {range:?} {of} was accepted");
        }
        for size in ["0", "33", "-1", "24x", ""] {
            let odd = wanted("", "", Family::V4, json!({ "netloom.size": size }));
            assert!(odd.is_err(), "size {size:?} was accepted");
        }
    }

    #[test]
    fn a_misspelt_option_is_not_the_default() {
        for key in ["netloom.siez", "netloom_size", "Netloom.size"] {
            let odd = wanted("", "", Family::V4, json!({ key: "24" }));
            assert!(odd.is_err(), "{key} was accepted");
        }
        let other = wanted("", "", Family::V4, json!({ "org.example.x": "24" })).unwrap();
        assert_eq!(other, WantedPool::Any(Family::V4));
    }

    #[test]
    fn a_request_without_an_address_space_is_not_a_wish_for_any_pool() {
        assert!(pool_request(decode(b"{}").unwrap()).is_err());
    }

    #[test]
    fn the_container_is_known_by_what_docker_tells() {
        let body = json!({
            "PoolID": "p1", "Address": "",
            "Options": {
                "com.docker.network.endpoint.macaddress": "02:42:ac:11:00:05",
                "com.docker.network.endpoint.name": "web",
            },
        });
        let request = address_request(decode(body.to_string().as_bytes()).unwrap()).unwrap();
        assert_eq!(request.purpose, Purpose::Endpoint);
        assert_eq!(request.name.as_deref(), Some("web"));
        assert_eq!(request.mac.unwrap().to_string(), "02:42:ac:11:00:05");
    }
}
