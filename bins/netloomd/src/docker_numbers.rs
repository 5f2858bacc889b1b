//! What Docker's ways leave to us: whether we put interfaces into containers, under which numbers.

use crate::daemon::Daemon;
use crate::docker_admin::{LiveRestore, RuntimeWays};
use crate::error_chain;
use netloom_drivers::InsideRule;

/// Where our numbers start, since Docker (20.10 to 28) numbers the interfaces that it moves by a
/// counter, without looking: no container joins a hundred of Docker's own networks in its life.
pub(crate) const BESIDE_A_COUNTER: u16 = 100;

/// Learns whether Docker rebuilds its view of running containers after a restart.
///
/// It rebuilds it from the interfaces that it moved itself; of one that it did not move it makes
/// an error, and forgets the container's name. While its ways are not known, it moves them all.
pub(crate) async fn learn(daemon: &Daemon) {
    let rule = match daemon.docker.ways().await {
        Ok(ways) => rule(&ways),
        Err(error) => {
            tracing::debug!(
                error = error_chain(&error),
                "Docker's settings are not to be had"
            );
            InsideRule::Never
        }
    };
    daemon.inside.set(rule);
}

fn rule(ways: &RuntimeWays) -> InsideRule {
    match ways.live_restore {
        LiveRestore::Off => InsideRule::BesideNumberZero,
        LiveRestore::On | LiveRestore::Unknown => InsideRule::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_that_restores_or_does_not_say_moves_interfaces_itself() {
        let of = |live_restore| rule(&RuntimeWays { live_restore });
        assert_eq!(of(LiveRestore::Off), InsideRule::BesideNumberZero);
        assert_eq!(of(LiveRestore::On), InsideRule::Never);
        assert_eq!(of(LiveRestore::Unknown), InsideRule::Never);
    }
}
