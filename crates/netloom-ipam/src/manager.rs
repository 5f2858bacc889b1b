//! The address manager: the traits' methods, each a short story of memory, store and journal.

use crate::book::{Book, Outlook, Refusal, Wish, not_journalled, unknown_reference};
use crate::cluster::{Member, Mirror};
use crate::config::{HostRoutes, IpamConfig, Sharing};
use crate::infrastructure::Want;
use crate::journal::{Disk, Ticket};
use crate::ranges::Gates;
use crate::registry::Registry;
use crate::sightings::Sightings;
use crate::space::Reference;
use async_trait::async_trait;
use netloom_core::{
    AddressRequest, AddressSpace, Clock, Ids, Ipam, IpamError, PoolGrant, PoolRequest, Purpose,
    crash_point,
};
use netloom_types::{InterfaceAddr, MacAddr, PoolId, Subnet};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Address management on one host: pools in the store, addresses in the journal, and both in
/// memory.
///
/// See the crate's documentation for an example.
#[derive(Debug)]
pub struct AddressManager {
    pub(crate) config: IpamConfig,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) routes: Arc<dyn HostRoutes>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) registry: Registry,
    /// One change of pools at a time; addresses do not wait for it.
    pub(crate) changes: tokio::sync::Mutex<()>,
    pub(crate) gates: Gates,
    pub(crate) member: Arc<Member>,
    pub(crate) mirror: Mirror,
    /// One try at a time to take part in the store.
    pub(crate) joining: tokio::sync::Mutex<()>,
    pub(crate) book: Arc<Mutex<Book>>,
    pub(crate) sightings: Mutex<Sightings>,
    /// Names of networks by subnet, as far as the runtime told them, for error texts.
    pub(crate) names: Mutex<BTreeMap<Subnet, String>>,
}

impl AddressManager {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all that was noted so far is durable.
    ///
    /// # Errors
    /// When the journal took it not, or takes nothing any more: what it dropped then is not waited
    /// for by anybody else.
    pub(crate) async fn all_durable(&self) -> Result<(), IpamError> {
        let noted = self.book().journal.under_way();
        settle(noted).await?;
        match self.book().journal.failure() {
            Some(failure) => Err(not_journalled(failure)),
            None => Ok(()),
        }
    }

    pub(crate) fn sightings(&self) -> MutexGuard<'_, Sightings> {
        let sightings = self.sightings.lock();
        sightings.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn names(&self) -> MutexGuard<'_, BTreeMap<Subnet, String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reference that an id names. What was local before this host shared its store is a pool
    /// of all now.
    pub(crate) fn reference(&self, id: &PoolId) -> Option<Reference> {
        let mut reference = Reference::parse(id)?;
        let shared = !self.member.is_alone() && reference.pool.space == AddressSpace::Local;
        if shared && !self.book().pools.contains_key(&reference.pool) {
            reference.pool.space = AddressSpace::Global;
        }
        Some(reference)
    }

    /// When a request that begins to wait for other hosts gives up.
    pub(crate) fn deadline(&self) -> Instant {
        let time = match &self.config.sharing {
            Sharing::Alone => Duration::ZERO,
            Sharing::Cluster(cluster) => cluster.answer_time,
        };
        Instant::now() + time
    }

    /// Gives up on a store that is shared before the caller does. What was under way is settled
    /// later, as when the caller goes away.
    pub(crate) async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, IpamError>>,
    ) -> Result<T, IpamError> {
        self.until(Instant::now() + CALL_TIME, call).await
    }

    async fn until<T>(
        &self,
        end: Instant,
        call: impl Future<Output = Result<T, IpamError>>,
    ) -> Result<T, IpamError> {
        if self.member.is_alone() {
            return call.await;
        }
        match tokio::time::timeout_at(end, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(IpamError::Unavailable {
                what: "the store is slow; try again".to_owned(),
                source: None,
            }),
        }
    }

    async fn ready_by(&self, end: Instant) -> Result<(), IpamError> {
        if self.book().journal.failure().is_none() {
            return Ok(());
        }
        Box::pin(self.until(end, self.ready())).await
    }

    /// What few requests wait for is boxed here and below: inlined, it makes the future of every request
    /// ten times as large, and copying that is a good part of what a request costs.
    async fn endpoint_address(
        &self,
        reference: Reference,
        request: &AddressRequest,
        end: Instant,
    ) -> Result<IpAddr, IpamError> {
        self.member.may_hand_out()?;
        self.must_be_common(reference.pool)?;
        let wish = Wish {
            wanted: request.wanted,
            mac: request.mac,
            name: request.name.clone(),
            now: self.clock.now(),
        };
        let mut deadline = None;
        for _ in 0..STEPS_MAX {
            let taken = self.book().take(reference, &wish);
            match taken {
                Ok(taking) => {
                    settle(taking.ticket).await?;
                    // Not before: whoever leads a commit keeps the thread on which it would be heard.
                    if taking.outlook == Outlook::Scarce {
                        self.gates.ask_ahead(reference.pool);
                    }
                    return Ok(taking.ip);
                }
                Err(Refusal::Unused) => {
                    let want = self.want(reference, Want::Use);
                    Box::pin(self.until(end, want)).await?;
                }
                Err(Refusal::Absent(need)) => {
                    let follow = self.follow_life(reference.pool);
                    Box::pin(self.until(end, follow)).await?;
                    let deadline = *deadline.get_or_insert_with(|| self.deadline());
                    let fetch = self.fetch(reference.pool, need, deadline);
                    Box::pin(self.until(end, fetch)).await?;
                }
                Err(Refusal::Error(error)) => return Err(error),
            }
        }
        Err(IpamError::Unavailable {
            what: "the pool keeps changing; try again".to_owned(),
            source: None,
        })
    }
}

#[async_trait]
impl Ipam for AddressManager {
    async fn request_pool(&self, request: PoolRequest) -> Result<PoolGrant, IpamError> {
        let granted = async {
            self.ready().await?;
            self.grant_pool(request).await
        };
        let grant = self.in_time(granted).await?;
        crash_point!("ipam.reply.request_pool");
        Ok(grant)
    }

    async fn release_pool(&self, pool: &PoolId) -> Result<(), IpamError> {
        let released = async {
            self.ready().await?;
            match self.reference(pool) {
                Some(reference) => self.drop_reference(reference).await,
                None => Ok(()),
            }
        };
        self.in_time(released).await?;
        crash_point!("ipam.reply.release_pool");
        Ok(())
    }

    async fn request_address(&self, request: AddressRequest) -> Result<InterfaceAddr, IpamError> {
        let end = Instant::now() + CALL_TIME;
        self.ready_by(end).await?;
        let address = self.address_for(&request, end).await?;
        crash_point!("ipam.reply.request_address");
        Ok(address)
    }

    async fn release_address(&self, pool: &PoolId, ip: IpAddr) -> Result<(), IpamError> {
        self.take_back(pool, ip, Instant::now() + CALL_TIME).await?;
        crash_point!("ipam.reply.release_address");
        Ok(())
    }

    async fn confirm(&self, ip: IpAddr, mac: Option<MacAddr>) -> Result<(), IpamError> {
        self.ready_by(Instant::now() + CALL_TIME).await?;
        let ticket = self.book().confirm(ip, mac)?;
        settle(ticket).await?;
        crash_point!("ipam.reply.confirm");
        Ok(())
    }
}

impl AddressManager {
    async fn address_for(
        &self,
        request: &AddressRequest,
        end: Instant,
    ) -> Result<InterfaceAddr, IpamError> {
        let reference = self.reference(&request.pool).ok_or_else(|| {
            IpamError::NotFound(format!(
                "{} is not a pool reference of netloom; remove the network and make it again",
                request.pool
            ))
        })?;
        let ip = match (request.purpose, request.wanted) {
            (Purpose::Gateway, wanted) => {
                let want = self.want(reference, Want::Gateway(wanted));
                Box::pin(self.until(end, want)).await?
            }
            // Docker tells a link address, and since 29 a name, with every container.
            (Purpose::Endpoint, Some(ip)) if request.mac.is_none() && request.name.is_none() => {
                let want = self.want(reference, Want::Auxiliary(ip));
                Box::pin(self.until(end, want)).await?
            }
            // Most need no store, and no time is looked after for those.
            (Purpose::Endpoint, _) => Some(self.endpoint_address(reference, request, end).await?),
        };
        let ip = ip.ok_or_else(|| unknown_reference(reference))?;
        InterfaceAddr::in_subnet(ip, reference.pool.subnet)
            .map_err(|e| IpamError::Invalid(e.to_string()))
    }

    async fn take_back(&self, pool: &PoolId, ip: IpAddr, end: Instant) -> Result<(), IpamError> {
        self.ready_by(end).await?;
        let Some(reference) = self.reference(pool) else {
            return Ok(());
        };
        let released = {
            let mut book = self.book();
            // A store that went back may call the gateway what a container has got since.
            let is_infrastructure = book
                .live(reference)
                .is_ok_and(|live| live.gateway == Some(ip) || live.is_auxiliary(ip))
                && !book.gave(reference, ip);
            match is_infrastructure {
                true => None,
                false => Some(book.release(reference, ip)?),
            }
        };
        match released {
            Some(ticket) => settle(ticket).await,
            None => {
                let dropped = self.drop_infrastructure(reference, ip);
                Box::pin(self.until(end, dropped)).await
            }
        }
    }

    pub(crate) async fn take_endpoint_back(
        &self,
        pool: &PoolId,
        ip: IpAddr,
    ) -> Result<(), IpamError> {
        self.ready_by(Instant::now() + CALL_TIME).await?;
        let released = match self.reference(pool) {
            None => None,
            Some(reference) => self.book().release(reference, ip)?,
        };
        settle(released).await
    }
}

/// Waits until what was noted is durable.
pub(crate) async fn settle(ticket: Option<Ticket>) -> Result<(), IpamError> {
    match ticket {
        None => Ok(()),
        Some(ticket) => ticket.durable().await.map_err(not_journalled),
    }
}

/// A plugin call is answered within five seconds.
const CALL_TIME: Duration = Duration::from_millis(4500);
/// Steps of one request: marking the reference, claiming a chunk, and again when another request
/// took the chosen address meanwhile. Each step lets somebody else succeed.
const STEPS_MAX: u32 = 64;
