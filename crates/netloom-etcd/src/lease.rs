//! Which hosts are probably alive: a key per host, on a lease.

use crate::failure::Failure;
use crate::link::{Answer, keys_only};
use crate::store::{EtcdStore, PAGE_BYTES_MAX, range};
use async_trait::async_trait;
use etcd_client::{Client, Error, GetOptions, PutOptions};
use netloom_core::store::{Key, Liveness, StoreError};
use netloom_types::HostId;

/// How long a host shows as alive after its last word. A new leader gives every lease its whole
/// time again, so that a dead host may show for longer.
const LEASE_SECONDS: i64 = 10;

/// What was last said.
#[derive(Debug)]
pub(crate) struct Announced {
    host: HostId,
    lease: i64,
}

impl EtcdStore {
    fn alive_key(&self, host: &HostId) -> String {
        format!("{}/alive/{host}", self.link.config.url.prefix)
    }

    /// Renews the lease; tells whether it, and the key on it, are still there. A renewal alone
    /// proves nothing: etcd may renew a lease whose keys it is taking away already.
    async fn still_announced(&self, host: &HostId, lease: i64) -> Result<bool, Failure> {
        let key = self.alive_key(host);
        self.link
            .read(|client| {
                let key = key.clone();
                async move { renew(client, key, lease).await }
            })
            .await
    }

    async fn announce_anew(&self, host: &HostId) -> Result<i64, Failure> {
        let key = self.alive_key(host);
        // Not a read, but as harmless when it is done twice: a lease without a key runs out.
        self.link
            .read(|client| {
                let key = key.clone();
                async move {
                    let lease = client.lease_client().grant(LEASE_SECONDS, None).await?.id();
                    let on_lease = PutOptions::new().with_lease(lease);
                    let mut put = client.kv_client().put(key, "", Some(on_lease)).await?;
                    Ok((put.take_header(), lease))
                }
            })
            .await
    }
}

async fn renew(client: Client, key: String, lease: i64) -> Result<Answer<bool>, Error> {
    match client.lease_client().keep_alive(lease).await {
        Ok(_) => {}
        // What the library says for an answer without time left: the lease is dead, for ever.
        Err(Error::LeaseKeepAliveError(_)) => return Ok((None, false)),
        Err(other) => return Err(other),
    }
    let mut row = client.kv_client().get(key, Some(keys_only())).await?;
    let is_there = row.kvs().first().is_some_and(|row| row.lease() == lease);
    Ok((row.take_header(), is_there))
}

#[async_trait]
impl Liveness for EtcdStore {
    async fn announce(&self, host: &HostId) -> Result<(), StoreError> {
        let mut announced = self.lease.lock().await;
        if let Some(before) = announced.as_ref().filter(|before| before.host == *host)
            && self.still_announced(host, before.lease).await?
        {
            return Ok(());
        }
        // Never use a lease again that was found dead: every write on it would fail.
        *announced = None;
        let lease = self.announce_anew(host).await?;
        let host = host.clone();
        *announced = Some(Announced { host, lease });
        Ok(())
    }

    async fn alive(&self) -> Result<Vec<HostId>, StoreError> {
        let directory = format!("{}/alive", self.link.config.url.prefix);
        let directory = Key::new(directory)
            .map_err(|error| StoreError::Denied(format!("the prefix is too long: {error}")))?;
        let (from, to) = range(&directory);
        let found = self
            .link
            .read(|client| {
                let options = GetOptions::new().with_range(to.as_str()).with_keys_only();
                let from = from.clone();
                async move {
                    let mut kv = client.kv_client().max_decoding_message_size(PAGE_BYTES_MAX);
                    let mut found = kv.get(from, Some(options)).await?;
                    Ok((found.take_header(), found))
                }
            })
            .await?;
        let host = |key: &[u8]| {
            let key = core::str::from_utf8(key).ok()?;
            HostId::new(key.strip_prefix(from.as_str())?).ok()
        };
        Ok(found
            .kvs()
            .iter()
            .filter_map(|row| host(row.key()))
            .collect())
    }
}
