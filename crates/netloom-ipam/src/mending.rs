//! What follows from an audit: settling what is in doubt, mending what is stray, and words for
//! people.

use crate::audit::{Trouble, Use, names, survey};
use crate::book::{Book, bounded};
use crate::event::{Event, Slot, SlotState};
use crate::manager::{AddressManager, settle};
use crate::ranges::{Fetched, Need};
use crate::records::ReferenceState;
use crate::sightings::Subject;
use crate::space::PoolKey;
use netloom_core::{Evidence, Finding, FindingKind, IpamError, Repair, Timestamp, crash_point};
use netloom_types::MacAddr;
use std::net::IpAddr;
use std::time::Duration;

/// How far a look at the truths may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Settle what is in doubt: that is its normal end.
    Settle,
    /// Mend strays too.
    Mend,
}

impl AddressManager {
    pub(crate) async fn look(
        &self,
        evidence: &Evidence,
        reach: Reach,
    ) -> Result<Vec<Finding>, IpamError> {
        self.ready().await?;
        if evidence.runtime.is_some() {
            *self.names() = names(evidence);
        }
        let troubles = survey(&self.book(), evidence);
        let now = self.clock.monotonic();
        let subjects = troubles.iter().filter_map(Trouble::subject);
        self.sightings().note(subjects, now);
        if evidence.runtime.is_some() {
            self.note_unanswered(&troubles);
        }
        let mut findings = Vec::new();
        let mut failed = None;
        for trouble in troubles {
            let ripe = self.is_ripe(trouble.subject(), now);
            // Where a mend fails, the next would too, and each takes its time; what was found is told all the same.
            let may = failed.is_none() && (ripe || matches!(trouble, Trouble::Attested(_)));
            let repair = match may {
                false => Repair::ByRepair,
                true => match self.mend(&trouble, reach).await {
                    Ok(true) => Repair::Done,
                    Ok(false) => Repair::ByRepair,
                    Err(error) => {
                        tracing::warn!(%error, "the audit could not mend what it found");
                        failed = Some(error);
                        Repair::ByRepair
                    }
                },
            };
            if let Some(finding) = self.finding(&trouble, repair, now) {
                findings.push(finding);
            }
        }
        match failed {
            Some(error) if findings.is_empty() => Err(error),
            _ => Ok(findings),
        }
    }

    /// Addresses that a former process handed out and that nobody has: who asks for one of them by
    /// name need not wait for the grace time, because its own endpoint confirms with a link
    /// address of its own, and the former one's would be refused.
    fn note_unanswered(&self, troubles: &[Trouble]) {
        let mut book = self.book();
        let before = book.answered_after;
        let unanswered = troubles.iter().filter_map(|trouble| match trouble {
            Trouble::Unused(used)
                if used.state == SlotState::InDoubt && used.operation <= before =>
            {
                Some(used.operation)
            }
            _ => None,
        });
        book.unanswered = unanswered.collect();
    }

    fn is_ripe(&self, subject: Option<Subject>, now: Duration) -> bool {
        let grace = self.config.settle_after;
        subject.is_some_and(|subject| self.sightings().ripe(subject, now, grace))
    }

    /// Whether it is in order now.
    async fn mend(&self, trouble: &Trouble, reach: Reach) -> Result<bool, IpamError> {
        match (trouble, reach) {
            (Trouble::Unused(used), _) if used.state == SlotState::InDoubt => {
                crash_point!("ipam.audit.before_settle");
                self.release_use(used).await
            }
            (Trouble::Attested(used), _) => self.confirm_use(used).await,
            (
                Trouble::Reference {
                    reference, state, ..
                },
                _,
            ) if reach == Reach::Mend || *state == ReferenceState::Offered => {
                crash_point!("ipam.audit.before_drop");
                self.drop_reference(*reference).await.map(|()| true)
            }
            (Trouble::Unused(used), Reach::Mend) => {
                crash_point!("ipam.audit.before_release");
                self.release_use(used).await
            }
            (
                Trouble::Unrecorded {
                    pool, ip, mac, by, ..
                },
                Reach::Mend,
            ) => {
                crash_point!("ipam.audit.before_adopt");
                self.adopt(*pool, *ip, *mac, by).await
            }
            _ => Ok(false),
        }
    }

    async fn release_use(&self, used: &Use) -> Result<bool, IpamError> {
        let ticket = {
            let mut book = self.book();
            if !still(&book, used) {
                return Ok(true);
            }
            book.free(used.pool, used.index, used.operation)?
        };
        settle(Some(ticket)).await?;
        Ok(true)
    }

    async fn confirm_use(&self, used: &Use) -> Result<bool, IpamError> {
        let ticket = {
            let mut book = self.book();
            if !still(&book, used) {
                return Ok(true);
            }
            book.note(Event::Confirmed {
                pool: used.pool,
                index: used.index,
                operation: used.operation,
                mac: None,
            })?
        };
        settle(Some(ticket)).await?;
        Ok(true)
    }

    /// Takes an address that somebody uses out of hand-out.
    async fn adopt(
        &self,
        pool: PoolKey,
        ip: IpAddr,
        mac: Option<MacAddr>,
        by: &str,
    ) -> Result<bool, IpamError> {
        let Some(index) = pool.subnet.index_of(ip) else {
            return Ok(true);
        };
        // Of another host's address only a person can tell who has it wrongly.
        if !self.own(pool, index).await? {
            return Ok(false);
        }
        let ticket = {
            let mut book = self.book();
            let book = &mut *book;
            let Some((number, index)) = book.locate(pool, ip) else {
                return Ok(true);
            };
            let (Some(live), Some(ledger)) =
                (book.pools.get_mut(&pool), book.table.pools.get(&number))
            else {
                return Ok(true);
            };
            if ledger.slots.contains_key(&index) {
                return Ok(true);
            }
            if !ledger.held.owns(index) {
                return Ok(false);
            }
            // Its bit is set already when it cools down or is reserved.
            let _ = live.addresses.allocate_at(ip);
            let slot = Slot {
                operation: book.table.next_operation(),
                reference: live.references.any_used().unwrap_or_default(),
                since: self.clock.now(),
                state: SlotState::Endpoint,
                mac,
                name: Some(bounded(by)),
            };
            book.note(Event::Taken {
                pool: number,
                index,
                slot,
            })?
        };
        settle(Some(ticket)).await?;
        Ok(true)
    }

    /// Makes an address this host's, if nobody else has it; whether it is.
    pub(crate) async fn own(&self, pool: PoolKey, index: u128) -> Result<bool, IpamError> {
        self.follow_life(pool).await?;
        let need = Need::Exactly(index);
        match self.fetch(pool, need, self.deadline()).await {
            Ok(fetched) => Ok(fetched == Fetched::Some),
            Err(IpamError::InUse(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn finding(&self, trouble: &Trouble, repair: Repair, now: Duration) -> Option<Finding> {
        let grace = self.config.settle_after;
        let next_step = "netloom audit --repair".to_owned();
        match trouble {
            Trouble::Attested(_) => None,
            Trouble::Unused(used) => {
                let in_doubt = used.state == SlotState::InDoubt;
                // In doubt is no disorder before its end is overdue.
                let due = if in_doubt { 3 * grace } else { SETTLING };
                let told = self.age(used.since) >= due && !(in_doubt && repair == Repair::Done);
                told.then(|| Finding {
                    kind: FindingKind::StrayAddress,
                    subject: used.ip.to_string(),
                    detail: unused_detail(used),
                    repair,
                    next_step,
                })
            }
            Trouble::Unrecorded {
                ip,
                by,
                lately_released,
                ..
            } => {
                let again = self.sightings().again(Subject::Unrecorded(*ip), now);
                (again || !lately_released).then(|| Finding {
                    kind: FindingKind::StrayAddress,
                    subject: ip.to_string(),
                    detail: format!("{by} uses it, but the journal holds it to be free"),
                    repair,
                    next_step,
                })
            }
            Trouble::Reference {
                reference, granted, ..
            } => (self.age(*granted) >= grace).then(|| Finding {
                kind: FindingKind::StrayPool,
                subject: reference.id().to_string(),
                detail: format!(
                    "no network uses this reference to {}",
                    reference.pool.subnet
                ),
                repair,
                next_step,
            }),
            Trouble::Duplicate { ip, by } => Some(Finding {
                kind: FindingKind::DuplicateAddress,
                subject: ip.to_string(),
                detail: format!("several have it: {}", by.join(", ")),
                repair: Repair::ByHand,
                next_step: "disconnect all but one with `docker network disconnect`".to_owned(),
            }),
            Trouble::UnknownNetwork { name, subnet } => Some(Finding {
                kind: FindingKind::StrayPool,
                subject: name.clone(),
                detail: format!("network {name} uses {subnet}, which is no pool here"),
                repair: Repair::ByHand,
                next_step: format!("remove the network {name} and make it again"),
            }),
        }
    }

    fn age(&self, since: Timestamp) -> Duration {
        Duration::from_millis(self.clock.now().0.saturating_sub(since.0))
    }
}

/// The re-check right before: only the very use that was looked at, in the state that it had.
fn still(book: &Book, used: &Use) -> bool {
    let ledger = book.table.pools.get(&used.pool);
    ledger
        .and_then(|l| l.slots.get(&used.index))
        .is_some_and(|s| s.operation == used.operation && s.state == used.state)
}

fn unused_detail(used: &Use) -> String {
    let whose = used.name.as_deref().map(|n| format!(" for {n}"));
    let whose = whose.unwrap_or_default();
    match used.state {
        SlotState::InDoubt => {
            format!("handed out{whose} and never confirmed; neither Docker nor the kernel has it")
        }
        SlotState::Endpoint => {
            format!("in use{whose} by the journal; neither Docker nor the kernel has it")
        }
    }
}

/// Between an endpoint's confirmation and its showing up elsewhere, and between its leaving and
/// its release, lie some calls of dockerd: longer than they take on a loaded host.
const SETTLING: Duration = Duration::from_secs(2);
