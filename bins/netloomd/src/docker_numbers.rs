//! Which numbers are ours to give to interfaces inside a container: Docker's version decides.

use crate::daemon::Daemon;
use crate::error_chain;

/// With a Docker that counts, and while its version is not known: no container joins a hundred of
/// Docker's own networks in its life.
pub(crate) const BESIDE_A_COUNTER: u16 = 100;
/// With a Docker that looks for the lowest free number, as we do.
const BESIDE_A_LOOKER: u16 = 1;
/// Docker's first release that looks.
const LOOKS_SINCE: u32 = 28;

/// Learns Docker's version, unless the configuration has decided already.
pub(crate) async fn learn(daemon: &Daemon) {
    if daemon.config.first_interface_number.is_some() {
        return;
    }
    match daemon.docker.version().await {
        Ok(version) => daemon.interface_numbers.set(first_number(&version)),
        Err(error) => tracing::debug!(
            error = error_chain(&error),
            "Docker's version is not to be had"
        ),
    }
}

fn first_number(version: &str) -> u16 {
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= LOOKS_SINCE => BESIDE_A_LOOKER,
        _ => BESIDE_A_COUNTER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_that_counts_or_is_unknown_gets_room() {
        assert_eq!(first_number("20.10.24+dfsg1"), BESIDE_A_COUNTER);
        assert_eq!(first_number("26.1.5+dfsg1"), BESIDE_A_COUNTER);
        assert_eq!(first_number("unknown"), BESIDE_A_COUNTER);
        assert_eq!(first_number("28.5.2"), BESIDE_A_LOOKER);
        assert_eq!(first_number("29.0.0-rc.1"), BESIDE_A_LOOKER);
    }
}
