//! Into which sandboxes the driver itself puts an interface, and where the caller moves it there.

use super::options::PlacementWish;
use super::plan::EndpointPlan;
use netloom_core::SandboxRef;
use netloom_linux::Kernel;
use netloom_types::LinkName;
use std::sync::{Arc, Mutex, PoisonError};

/// When the driver itself makes an interface inside a sandbox that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InsideRule {
    /// Always.
    #[default]
    Always,
    /// Beside an interface with number 0, under a wished name, or where it is wished. A caller that
    /// numbers by a counter of its own, without looking (Docker does), would run into an `eth0` that
    /// it has not given; once it has, higher numbers of ours are out of its way.
    BesideNumberZero,
    /// Never: a caller that rebuilds its view of a sandbox after a restart (Docker's live-restore)
    /// must have moved every interface itself.
    Never,
}

/// The rule in force. Clones share it, since it may be learned while the driver is in use.
#[derive(Debug, Clone, Default)]
pub struct Inside(Arc<Mutex<InsideRule>>);

impl Inside {
    /// Starts with `rule`.
    #[must_use]
    pub fn new(rule: InsideRule) -> Self {
        Self(Arc::new(Mutex::new(rule)))
    }

    /// Uses `rule` from now on.
    pub fn set(&self, rule: InsideRule) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rule;
    }

    /// The rule in force.
    #[must_use]
    pub fn get(&self) -> InsideRule {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of an endpoint's wish under `rule`.
pub(super) fn placement(
    rule: InsideRule,
    kernel: &dyn Kernel,
    plan: &EndpointPlan,
    sandbox: &SandboxRef,
) -> PlacementWish {
    let allowed = match rule {
        InsideRule::Always => true,
        InsideRule::Never => false,
        InsideRule::BesideNumberZero => {
            plan.ifname.is_some()
                || plan.placement == PlacementWish::Inside
                || LinkName::new(format!("{}0", plan.ifname_prefix))
                    .is_ok_and(|zero| kernel.has_link_in(&sandbox.netns, &zero).unwrap_or(false))
        }
    };
    match allowed {
        true => plan.placement,
        false => PlacementWish::Caller,
    }
}
