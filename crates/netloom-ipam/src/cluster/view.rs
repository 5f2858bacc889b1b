//! The group of hosts, for people.

use super::init::cluster_init;
use super::look::Meeting;
use super::member::caused;
use crate::manager::AddressManager;
use crate::records::{HostRecord, HostState, StatusRecord};
use crate::space::Keys;
use async_trait::async_trait;
use netloom_core::store::{CommitError, Conflict};
use netloom_core::{
    ClusterAdmin, ClusterView, Forgotten, HostView, IpamError, Membership, ShareView,
};
use netloom_types::HostId;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, timeout};

#[async_trait]
impl ClusterAdmin for AddressManager {
    async fn cluster(&self) -> ClusterView {
        self.member.view()
    }

    async fn initialise(&self) -> Result<u64, IpamError> {
        if self.member.is_alone() {
            return Err(IpamError::Invalid(
                "this host has a store of its own, which needs no initialising; set `store` to the \
                 address of the cluster's store first"
                    .to_owned(),
            ));
        }
        let memory = self.member.memory();
        let mut waiting: Vec<HostId> = Vec::new();
        let known = self.remembered().await?;
        // A power cut may take what the journal knew of the store; other hosts in the mirror show
        // that there was one.
        if !memory.is_blank() || known.len() > 1 {
            let known = known.into_iter();
            waiting.extend(known.filter_map(|host| HostId::new(host).ok()));
            waiting.push(self.member.host().clone());
        }
        let store = self.member.store();
        let begun = cluster_init(&**store, &*self.ids, memory.epoch, waiting);
        let begun = timeout(INITIALISE_TIME, begun).await;
        let begun = begun.unwrap_or_else(|_| Err(CommitError::Unknown(None)));
        let number = begun.map_err(not_initialised)?;
        self.rejoin().await?;
        Ok(number)
    }

    async fn hosts(&self) -> Result<Vec<HostView>, IpamError> {
        let deadline = Instant::now() + LIST_TIME;
        let hosts = self.member.list_hosts(deadline).await?;
        let statuses = self.member.list_statuses(deadline).await?;
        let me = self.member.host().as_str();
        Ok(views(&hosts, &statuses, me))
    }

    async fn forget(&self, host: &HostId) -> Result<Forgotten, IpamError> {
        if host == self.member.host() {
            return Err(IpamError::Invalid(format!(
                "host {host} is the one that answers; forget it from another host"
            )));
        }
        self.forget_host(host.as_str()).await
    }
}

fn not_initialised(error: CommitError) -> IpamError {
    match error {
        CommitError::Conflict { key, .. } if key == Keys::copy() => IpamError::InUse(
            "the store holds an unfinished copy of another one: finish it by the same \
             `netloom store copy`, or empty the store"
                .to_owned(),
        ),
        CommitError::Conflict {
            conflict: Conflict::Exists,
            ..
        } => {
            IpamError::InUse("the store has an epoch already: it was initialised before".to_owned())
        }
        other => caused("the store was not initialised", other),
    }
}

impl AddressManager {
    /// Takes part in the store as it is now, again or for the first time.
    pub(crate) async fn rejoin(&self) -> Result<(), IpamError> {
        let _one_at_a_time = self.joining.lock().await;
        let remembered = self.remembered().await?;
        let past = self.past();
        match self.member.meet(past, &remembered).await? {
            Meeting::Joined => {
                self.promote_all().await?;
                self.follow_all().await
            }
            Meeting::Assert => self.assert_all().await,
        }
    }
}

fn views(
    hosts: &BTreeMap<String, HostRecord>,
    statuses: &BTreeMap<String, StatusRecord>,
    me: &str,
) -> Vec<HostView> {
    let view = |(host, record): (&String, &HostRecord)| {
        let status = statuses.get(host);
        let shares = status.into_iter().flat_map(|status| &status.shares);
        let shares = shares.map(|share| ShareView {
            subnet: share.subnet,
            owned: share.owned,
            free: share.free,
        });
        Some(HostView {
            host: HostId::new(host.as_str()).ok()?,
            membership: match record.state {
                HostState::Member => Membership::Member,
                HostState::Forgotten => Membership::Forgotten,
            },
            boot: record.boot.clone(),
            starts: record.starts,
            counter: record.counter,
            last_heard: status.map(|status| status.heard),
            shares: shares.collect(),
            here: host == me,
        })
    };
    hosts.iter().filter_map(view).collect()
}

impl super::Member {
    fn view(&self) -> ClusterView {
        let state = self.state();
        let store = &state.memory.store;
        ClusterView {
            store: (!store.is_empty()).then(|| store.to_string()),
            epoch: state.memory.epoch,
            standing: state.standing.clone(),
        }
    }
}

/// A person waits for it.
const LIST_TIME: Duration = Duration::from_secs(4);
const INITIALISE_TIME: Duration = Duration::from_secs(3);
