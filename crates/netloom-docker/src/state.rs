//! What the server needs to answer.

use crate::{CallObserver, NoObserver};
use netloom_core::{Controller, Ipam};
use std::sync::Arc;
use std::time::Duration;

/// How the server behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginSettings {
    /// How long dockerd waits for an answer at most. Docker's client for socket plugins has no
    /// time-out of its own, so a call that hangs would hang `docker run`.
    pub deadline: Duration,
    /// The driver of networks that name none with `-o netloom.driver=`.
    pub default_driver: String,
}

impl Default for PluginSettings {
    fn default() -> Self {
        Self {
            // Below the 15 s after which dockerd itself gives up a plugin that does not listen.
            deadline: Duration::from_secs(10),
            default_driver: "bridge".to_owned(),
        }
    }
}

/// Everything behind the two plugin protocols.
#[derive(Debug, Clone)]
pub struct PluginState {
    /// Networks and endpoints.
    pub controller: Arc<dyn Controller>,
    /// Pools and addresses.
    pub ipam: Arc<dyn Ipam>,
    /// Deadline and defaults.
    pub settings: PluginSettings,
    /// Is told of every call.
    pub observer: Arc<dyn CallObserver>,
}

impl PluginState {
    /// With default settings and nobody who counts.
    #[must_use]
    pub fn new(controller: Arc<dyn Controller>, ipam: Arc<dyn Ipam>) -> Self {
        Self {
            controller,
            ipam,
            settings: PluginSettings::default(),
            observer: Arc::new(NoObserver),
        }
    }
}
