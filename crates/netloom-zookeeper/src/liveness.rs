//! Which hosts are probably alive: a node per host that goes when its session does.

use crate::ZooKeeperStore;
use crate::greeting::make_directories;
use crate::session::Session;
use crate::store::ReadError;
use async_trait::async_trait;
use netloom_core::store::{Liveness, StoreError};
use netloom_types::HostId;
use zookeeper_client::{CreateMode, Error};

#[async_trait]
impl Liveness for ZooKeeperStore {
    async fn announce(&self, host: &HostId) -> Result<(), StoreError> {
        let path = format!("{}/{host}", self.known().alive_path());
        let path = path.as_str();
        let announce = |session: Session| async move { self.announce_at(&session, path).await };
        Ok(self.read(announce).await?)
    }

    async fn alive(&self) -> Result<Vec<HostId>, StoreError> {
        let directory = self.known().alive_path();
        let directory = directory.as_str();
        let look = |session: Session| async move {
            match session.client.list_children(directory).await {
                Ok(names) => Ok(names),
                Err(Error::NoNode) => Ok(Vec::new()),
                Err(other) => Err(ReadError::Library(other)),
            }
        };
        let names = self.read(look).await?;
        // A name that is no host's was made by somebody else.
        let mut hosts: Vec<_> = names.iter().filter_map(|name| name.parse().ok()).collect();
        hosts.sort_unstable();
        Ok(hosts)
    }
}

impl ZooKeeperStore {
    async fn announce_at(&self, session: &Session, path: &str) -> Result<(), ReadError> {
        let client = &session.client;
        if let Some(stat) = client.check_stat(path).await? {
            if stat.ephemeral_owner == client.session_id().0 {
                return Ok(());
            }
            // Left by an earlier session of this host, and about to go with it.
            match client.delete(path, Some(stat.version.max(0))).await {
                Ok(()) | Err(Error::NoNode | Error::BadVersion) => {}
                Err(other) => return Err(other.into()),
            }
        }
        make_directories(client, self.known(), path).await?;
        let options = CreateMode::Ephemeral.with_acls(self.known().acls());
        match client.create(path, b"", &options).await {
            // Another announcement of the same host was first.
            Ok(_) | Err(Error::NodeExists) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }
}
