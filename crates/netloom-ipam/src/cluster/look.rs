//! Meeting the store: reading what it shows, and taking part in it as far as this host may.

use super::commit::{OwnWrite, Sent, in_time, read_in_time};
use super::judge::{Look, Verdict, judge};
use super::member::{Joined, Member, State, caused, unavailable};
use super::memory::Memory;
use super::peers::Peers;
use crate::records::{
    EpochRecord, HOST_VERSION, HealRecord, HostRecord, HostState, Record, VERSION,
};
use crate::registry::{CONFLICTS_MAX, Stored, damage, damaged, unreadable};
use crate::space::Keys;
use netloom_core::store::{CommitError, Key, Operation, StoreError, Transaction, Version};
use netloom_core::{IpamError, Standing, crash_point};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What a host is to do after it met the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// Nothing: it takes part.
    Joined,
    /// Say again what it owns, and then that it did.
    Assert,
}

/// How much of the store is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// What every commit checks.
    Fences,
    /// The list of hosts too.
    All,
}

impl Width {
    /// How long one such look may take.
    const fn time(self) -> Duration {
        match self {
            Self::Fences => READ_TIME,
            Self::All => MEETING_TIME,
        }
    }
}

/// What this host's journal holds when it starts. One with pools in it was enlisted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Past {
    Blank,
    Pools,
}

impl Member {
    /// Joins the store as it is now; `remembered` are hosts that are to be waited for if its past
    /// turns out to be lost.
    ///
    /// # Errors
    /// `Unavailable`: why this host cannot take part now.
    pub(crate) async fn meet(
        &self,
        past: Past,
        remembered: &BTreeSet<String>,
    ) -> Result<Meeting, IpamError> {
        let deadline = Instant::now() + MEETING_TIME;
        for _ in 0..CONFLICTS_MAX {
            let look = self.look(Width::All, deadline).await?;
            let verdict = self.settle(look.clone());
            let outcome = match verdict {
                Verdict::Empty if self.may_initialise(&look, past) => {
                    self.begin(&look, 1, &BTreeSet::new(), deadline).await
                }
                Verdict::Begin(..) if self.alone => {
                    let why = self.lone_loss();
                    self.stop(&why);
                    return Err(unavailable(why));
                }
                Verdict::Begin(next, why) => {
                    tracing::error!(epoch = next, "the store lost its past: {why}");
                    self.begin(&look, next, remembered, deadline).await
                }
                Verdict::Stale => Ok(()),
                Verdict::Stop(why) | Verdict::Moved(why) => return Err(unavailable(why)),
                Verdict::Empty => return Err(unavailable(self.why_not())),
                Verdict::Assert => match self.start(&look, deadline).await {
                    Ok(()) => return Ok(Meeting::Assert),
                    Err(error) => Err(error),
                },
                Verdict::Join => match self.start(&look, deadline).await {
                    Ok(()) => return Ok(Meeting::Joined),
                    Err(error) => Err(error),
                },
            };
            match outcome {
                Ok(()) | Err(CommitError::Conflict { .. }) => {}
                Err(error) => {
                    self.lost_sight("the store did not take this host's record");
                    return Err(caused("the store did not take this host's record", error));
                }
            }
        }
        Err(unavailable(
            "others keep changing the record of this host; try again".to_owned(),
        ))
    }

    /// Whether the store, at a moment after whatever was read of it before, had all its past.
    ///
    /// # Errors
    /// `Unavailable` when it had not, or does not tell.
    pub(crate) async fn confirm_past(&self) -> Result<(), IpamError> {
        self.confirm_past_by(Width::Fences).await
    }

    /// The same, by as much of the store.
    ///
    /// # Errors
    /// As [`confirm_past`](Self::confirm_past).
    pub(super) async fn confirm_past_by(&self, width: Width) -> Result<(), IpamError> {
        for _ in 0..CONFLICTS_MAX {
            let look = self.look(width, Instant::now() + width.time()).await?;
            match self.settle(look) {
                Verdict::Join => return Ok(()),
                // This host changed something meanwhile, and the look tells nothing.
                Verdict::Stale => {}
                Verdict::Stop(why) => return Err(unavailable(why)),
                _ => {
                    self.astray.notify_one();
                    return Err(unavailable(
                        "the store lost its past, and this host has yet to write again what it \
                         knows; try again"
                            .to_owned(),
                    ));
                }
            }
        }
        Err(unavailable(
            "this host changes the store all the time; try again".to_owned(),
        ))
    }

    /// A look at the fences alone.
    pub(super) async fn glance(&self) -> Result<Look, IpamError> {
        self.look(Width::Fences, Instant::now() + READ_TIME).await
    }

    pub(super) async fn look(&self, width: Width, deadline: Instant) -> Result<Look, IpamError> {
        let found = self.try_look(width, deadline).await;
        if let Err(error) = &found {
            self.lost_sight(damage(error).unwrap_or("the store could not be read"));
        }
        found
    }

    async fn epoch_there(
        &self,
        deadline: Instant,
    ) -> Result<Option<Stored<EpochRecord>>, IpamError> {
        let Some((bytes, version)) = self.row(&Keys::epoch(), deadline).await? else {
            return Ok(None);
        };
        let record = EpochRecord::decode(&bytes);
        let record = record.map_err(|why| damaged(&Keys::epoch(), &why))?;
        Ok(Some(Stored { record, version }))
    }

    /// Whether the store has an epoch in which something can be changed.
    pub(super) async fn has_epoch(&self) -> Result<bool, IpamError> {
        let epoch = self.epoch_there(Instant::now() + READ_TIME).await?;
        Ok(epoch.is_some_and(|there| matches!(there.record, EpochRecord::Number(_))))
    }

    async fn try_look(&self, width: Width, deadline: Instant) -> Result<Look, IpamError> {
        let turn = self.state().turns;
        let identity = read_in_time(deadline, self.store.identity()).await;
        let store = crate::book::bounded(&identity.map_err(unreadable)?.0);
        let epoch = self.epoch_there(deadline).await?;
        let heal = self.record::<HealRecord>(&Keys::heal(), deadline).await?;
        let own = self
            .record::<HostRecord>(&self.keys.host(), deadline)
            .await?;
        let version = epoch.as_ref().map(|epoch| epoch.version.clone());
        let joined = |state: &State| state.joined.as_ref().map(|j| j.epoch_version.clone());
        // What is known of the others is of the epoch in which it was listed.
        let is_new = version != joined(&self.state());
        let hosts = if width == Width::All || is_new {
            Peers::of(self.host.as_str(), &self.list_hosts(deadline).await?)
        } else {
            self.state().hosts.clone()
        };
        Ok(Look {
            turn,
            store,
            epoch,
            heal,
            own,
            hosts,
        })
    }

    pub(super) async fn list_hosts(
        &self,
        deadline: Instant,
    ) -> Result<BTreeMap<String, HostRecord>, IpamError> {
        let listed = read_in_time(deadline, self.store.list(&Keys::hosts())).await;
        let mut hosts = BTreeMap::new();
        for (key, row) in listed.map_err(unreadable)? {
            let record = HostRecord::decode(&row.value).map_err(|why| damaged(&key, &why))?;
            let host = Keys::host_in(&key).ok_or_else(|| damaged(&key, "does not name a host"))?;
            hosts.insert(host, record);
        }
        Ok(hosts)
    }

    async fn record<R: Record>(
        &self,
        key: &Key,
        deadline: Instant,
    ) -> Result<Option<Stored<R>>, IpamError> {
        let Some((bytes, version)) = self.row(key, deadline).await? else {
            return Ok(None);
        };
        let record = R::decode(&bytes).map_err(|why| damaged(key, &why))?;
        Ok(Some(Stored { record, version }))
    }

    async fn row(
        &self,
        key: &Key,
        deadline: Instant,
    ) -> Result<Option<(Vec<u8>, Version)>, IpamError> {
        let row: Result<_, StoreError> = read_in_time(deadline, self.store.get(key)).await;
        Ok(row.map_err(unreadable)?.map(|row| (row.value, row.version)))
    }

    /// Judges a look, and takes in what it shows.
    pub(super) fn settle(&self, look: Look) -> Verdict {
        let mut state = self.state();
        if look.turn != state.turns {
            return Verdict::Stale;
        }
        if let Standing::Stopped { why } = &state.standing {
            // A person's business; whatever the store shows now, it ends with a restart.
            return Verdict::Stop(why.clone());
        }
        state.turns += 1;
        let own = look.own.as_ref().map(|own| &own.record);
        let is_lost = |joined: &Joined| own.is_none_or(|own| own.is_behind(&joined.own.record));
        state.losses += u64::from(state.joined.as_ref().is_some_and(is_lost));
        let mut verdict = judge(&state.me, &state.memory, &look);
        if let Some(joined) = &state.joined
            && let Some(own) = &look.own
            && own.version != joined.own.version
            // A store that was put in the place of another one counts anew.
            && own.record != joined.own.record
            // One that went back shows an older record; a second process only counts on.
            && !own.record.is_behind(&joined.own.record)
            && matches!(verdict, Verdict::Join | Verdict::Assert)
            && !Self::is_own(&state, &own.record.operation)
        {
            verdict = Verdict::Stop(format!(
                "another process changed the record of host {}: its state directory was copied; \
                 end the other one, and restart netloomd",
                self.host
            ));
        }
        match &verdict {
            Verdict::Stop(why) => {
                tracing::error!("this host stops to hand out addresses: {why}");
                self.hold_back();
                state.joined = None;
                state.standing = Standing::Stopped { why: why.clone() };
            }
            Verdict::Empty | Verdict::Begin(..) | Verdict::Moved(_) => {
                // The same epoch may be back with the next look.
                state.losses += u64::from(state.joined.take().is_some());
                let why = match &verdict {
                    Verdict::Moved(why) => why.clone(),
                    Verdict::Begin(_, why) => format!("the store lost its past: {why}"),
                    _ => empty_store(&state.memory),
                };
                state.standing = if state.me.starts.is_some() {
                    Standing::Offline { why }
                } else {
                    Standing::Starting { why }
                };
            }
            Verdict::Assert | Verdict::Join => self.take_in(&mut state, look),
            Verdict::Stale => {}
        }
        verdict
    }

    fn take_in(&self, state: &mut State, look: Look) {
        let waiting = look.waiting().to_vec();
        let heal = look.heal_version();
        let mark = look.hosts.mark();
        let mut hosts = look.hosts;
        hosts.share_with(&state.hosts);
        state.hosts = hosts;
        if state.me.starts.is_none() {
            return;
        }
        if let (Some(epoch), Some(own)) = (look.epoch, look.own)
            && let EpochRecord::Number(number) = epoch.record
        {
            state.memory.counter = state.memory.counter.max(own.record.counter);
            state.memory.mark = if state.memory.epoch == number {
                state.memory.mark.max(mark)
            } else {
                mark
            };
            state.memory.epoch = number;
            state.memory.store = look.store;
            state.memory.alone = self.alone;
            state.standing = self.standing_with(&waiting);
            state.unchecked |= !waiting.is_empty();
            self.hand_out();
            state.joined = Some(Joined {
                epoch_version: epoch.version,
                heal,
                waiting,
                own,
            });
        }
    }

    /// Writes this host's record with one start more, or, after it started, takes part again.
    async fn start(&self, look: &Look, deadline: Instant) -> Result<(), CommitError> {
        let started = self.state().me.starts;
        if started.is_some() && look.own.is_some() {
            return Ok(());
        }
        let Some(epoch) = &look.epoch else {
            return Ok(());
        };
        let Ok(_one_at_a_time) = timeout_at(deadline, self.turn.lock()).await else {
            return Err(CommitError::Unavailable(None));
        };
        let operation = self.operation();
        let record = self.own_record(look, operation.clone());
        let before = look.own.as_ref().map(|own| own.version.clone());
        let key = self.keys.host();
        let own = match &before {
            None => Operation::Create(key.clone(), record.encode()),
            Some(version) => Operation::Update(key.clone(), record.encode(), version.clone()),
        };
        let fence = Operation::CheckVersion(Keys::epoch(), epoch.version.clone());
        let write = OwnWrite {
            operation: &operation,
            before,
        };
        crash_point!("ipam.member.before_start");
        let transaction = Transaction::new([own, fence]);
        let sent = Sent::note(self, &operation);
        let delivered = self.deliver(&write, transaction, deadline).await;
        crash_point!("ipam.member.after_start");
        if let Ok(version) = &delivered {
            self.started(look, record, version.clone());
        }
        // Last, so that a look in between knows whose change it sees.
        sent.came_back();
        delivered.map(drop)
    }

    fn started(&self, look: &Look, record: HostRecord, version: Version) {
        let mut now = look.clone();
        now.hosts.note_own(&record);
        now.own = Some(Stored {
            record: record.clone(),
            version: version.clone(),
        });
        let memory = {
            // At once: whoever looked before the start knows no turn of its own in between.
            let mut state = self.state();
            state.me.starts = Some(record.starts);
            if let Standing::Stopped { .. } = state.standing {
                // What was seen meanwhile is a person's business.
                return;
            }
            self.take_in(&mut state, now);
            self.note_written(&mut state, Stored { record, version });
            state.memory.clone()
        };
        self.journal(memory);
    }

    fn own_record(&self, look: &Look, operation: String) -> HostRecord {
        let state = self.state();
        let own = look.own.as_ref().map(|own| &own.record);
        let starts = own.map_or(0, |own| own.starts).max(state.memory.starts);
        let counter = own.map_or(0, |own| own.counter).max(state.memory.counter);
        HostRecord {
            version: HOST_VERSION,
            operation,
            state: HostState::Member,
            host: state.me.host.clone(),
            boot: state.me.boot.clone(),
            machine: state.me.machine.clone(),
            journal: state.me.journal.clone(),
            starts: state.me.starts.map_or(starts + 1, |now| now.max(starts)),
            counter,
        }
    }

    /// Begins an epoch in which all hosts on record, all that are remembered, and this one are
    /// waited for; the first one of a host that is alone waits for nobody.
    async fn begin(
        &self,
        look: &Look,
        number: u64,
        remembered: &BTreeSet<String>,
        deadline: Instant,
    ) -> Result<(), CommitError> {
        let operation = self.operation();
        let mut waiting: BTreeSet<String> = remembered.clone();
        // Nobody else may know a host that is waited for and has no record.
        waiting.extend(look.waiting().iter().cloned());
        if look.epoch.is_some() {
            waiting.insert(self.host.as_str().to_owned());
        }
        for (host, state) in look.hosts.states().iter() {
            match state {
                _ if look.epoch.is_none() => {}
                HostState::Member => drop(waiting.insert(host.to_string())),
                HostState::Forgotten => drop(waiting.remove(host)),
            }
        }
        let heal = HealRecord {
            version: VERSION,
            operation,
            epoch: number,
            waiting: waiting.into_iter().collect(),
        };
        let epoch = EpochRecord::Number(number).encode();
        let write = |key, bytes, before: Option<_>| match before {
            None => Operation::Create(key, bytes),
            Some(version) => Operation::Update(key, bytes, version),
        };
        let before = look.epoch.as_ref().map(|epoch| epoch.version.clone());
        let sent = Transaction::new([
            write(Keys::epoch(), epoch, before),
            write(Keys::heal(), heal.encode(), look.heal_version()),
        ]);
        // An unknown outcome is settled by the next look: whoever began it, it has begun.
        match in_time(deadline, self.store.commit(sent)).await {
            Err(CommitError::Unknown(_)) => Ok(()),
            other => other.map(drop),
        }
    }

    fn may_initialise(&self, look: &Look, past: Past) -> bool {
        let memory_blank = self.state().memory.is_blank();
        self.alone && (look.own.is_some() || (memory_blank && past == Past::Blank))
    }

    fn why_not(&self) -> String {
        let state = self.state();
        if self.alone {
            drop(state);
            return self.lone_loss();
        }
        empty_store(&state.memory)
    }

    fn lone_loss(&self) -> String {
        format!(
            "the store is behind what host {} remembers in its address journal, or knows nothing \
             of it: the store was lost or is an old copy; restore the state directory as a whole, \
             or move it away as a whole",
            self.host
        )
    }

    pub(super) fn stop(&self, why: &str) {
        let mut state = self.state();
        // Under the lock, or a look that ends just now would let it hand out again.
        self.hold_back();
        state.joined = None;
        state.standing = Standing::Stopped {
            why: why.to_owned(),
        };
    }
}

fn empty_store(memory: &Memory) -> String {
    if memory.is_blank() {
        "the store was not initialised yet: check that it is the right one, then say \
         `netloom cluster init` on one host"
            .to_owned()
    } else {
        "the store is empty, and this host has addresses of it: find out who emptied it; if it \
         shall be used all the same, say `netloom cluster init` on one host, and all hosts write \
         again what they own"
            .to_owned()
    }
}

/// All of one meeting.
const MEETING_TIME: Duration = Duration::from_secs(4);
/// A look at the fences.
const READ_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::super::member::Founding;
    use super::*;
    use async_trait::async_trait;
    use netloom_core::SystemClock;
    use netloom_core::store::{Committed, Store, StoreIdentity, Versioned, Watch};
    use netloom_store::MemoryStore;
    use netloom_types::{BootId, HostId};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Does what it is told, and, once it is mute, does not say so.
    #[derive(Debug, Default)]
    struct Mute {
        inner: MemoryStore,
        mute: AtomicBool,
    }

    #[async_trait]
    impl Store for Mute {
        async fn identity(&self) -> Result<StoreIdentity, StoreError> {
            self.inner.identity().await
        }

        async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
            self.inner.get(key).await
        }

        async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
            self.inner.list(prefix).await
        }

        async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
            let done = self.inner.commit(transaction).await;
            if self.mute.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            done
        }

        async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
            self.inner.watch(prefix).await
        }
    }

    async fn joined<S: Store + 'static>(store: &Arc<S>) -> Member {
        let ids = Arc::new(SystemClock::new());
        let store: Arc<dyn Store> = Arc::<S>::clone(store);
        let _ = crate::cluster_init(&*store, &*ids, 0, []).await;
        let member = Member::new(Founding {
            store,
            ids,
            host: HostId::new("h1").unwrap(),
            boot: BootId::new("b1").unwrap(),
            machine: Some("m1".to_owned()),
            journal: 7,
            memory: Memory::default(),
        });
        let member = member.unwrap();
        let met = member.meet(Past::Blank, &BTreeSet::new()).await;
        assert_eq!(met.unwrap(), Meeting::Joined);
        member
    }

    /// A commit went through while the hosts were listed: the host's own record as it was read
    /// before is behind what the host remembers, and no past was lost.
    #[tokio::test]
    async fn a_look_from_before_a_commit_is_no_lost_past() {
        let store = Arc::new(MemoryStore::new());
        let member = joined(&store).await;
        let deadline = Instant::now() + MEETING_TIME;
        let look = member.look(Width::All, deadline).await.unwrap();
        member.commit("0a", Vec::new()).await.unwrap();
        assert_eq!(member.settle(look), Verdict::Stale);
        member.commit("0b", Vec::new()).await.unwrap();
        let look = member.look(Width::All, deadline).await.unwrap();
        assert_eq!(member.settle(look), Verdict::Join);
    }

    /// The store was put in the place of another one, with all that it held.
    #[tokio::test]
    async fn the_own_record_with_another_version_is_no_second_process() {
        let store = Arc::new(MemoryStore::new());
        let member = joined(&store).await;
        member.commit("0a", Vec::new()).await.unwrap();
        let key = member.keys.host();
        let own = store.get(&key).await.unwrap().unwrap();
        let gone = Operation::Delete(key.clone(), own.version.clone());
        store.commit(Transaction::new([gone])).await.unwrap();
        let again = Operation::Create(key, own.value);
        store.commit(Transaction::new([again])).await.unwrap();
        let look = member.glance().await.unwrap();
        assert_ne!(look.own.as_ref().unwrap().version, own.version);
        assert_eq!(member.settle(look), Verdict::Join);
        member.commit("0b", Vec::new()).await.unwrap();
    }

    /// The store went back, and another host was quicker to begin an epoch in which this one is
    /// waited for: the old record is no second process's.
    #[tokio::test]
    async fn the_own_record_of_an_earlier_time_is_no_second_process() {
        let store = Arc::new(MemoryStore::new());
        let member = joined(&store).await;
        member.commit("0a", Vec::new()).await.unwrap();
        let old = store.get(&member.keys.host()).await.unwrap().unwrap().value;
        member.commit("0b", Vec::new()).await.unwrap();
        goes_back(&*store, &member, Some(old)).await;
        let look = member.glance().await.unwrap();
        assert_eq!(member.settle(look), Verdict::Assert);
    }

    /// To when this host's record was that one, or there was none; another host began an epoch in which
    /// this one is waited for.
    async fn goes_back<S: Store>(store: &S, member: &Member, before: Option<Vec<u8>>) {
        let heal = HealRecord {
            version: VERSION,
            operation: "0c".to_owned(),
            epoch: 2,
            waiting: vec!["h1".to_owned()],
        };
        let version = |key: Key| async move { store.get(&key).await.unwrap().unwrap().version };
        let (own, epoch) = (member.keys.host(), EpochRecord::Number(2).encode());
        let now = version(own.clone()).await;
        let changes = [
            match before {
                Some(record) => Operation::Update(own, record, now),
                None => Operation::Delete(own, now),
            },
            Operation::Update(Keys::epoch(), epoch, version(Keys::epoch()).await),
            Operation::Update(Keys::heal(), heal.encode(), version(Keys::heal()).await),
        ];
        store.commit(Transaction::new(changes)).await.unwrap();
    }

    /// The store took this host's record, and its answer is on its way still.
    #[tokio::test]
    async fn an_own_start_that_shows_before_its_answer_is_no_second_process() {
        let store = Arc::new(Mute::default());
        let member = joined(&store).await;
        goes_back(&*store, &member, None).await;
        store.mute.store(true, Ordering::SeqCst);
        let nobody = BTreeSet::new();
        let mut met = Box::pin(member.meet(Past::Pools, &nobody));
        tokio::select! {
            biased;
            _ = &mut met => panic!("a mute store answered"),
            () = std::future::ready(()) => {}
        }
        let look = member.glance().await.unwrap();
        assert!(look.own.is_some());
        assert_eq!(member.settle(look), Verdict::Assert);
    }

    /// Whoever waits for a commit must not take what became of it from a record that was made anew.
    #[tokio::test]
    async fn a_store_that_forgot_this_host_is_not_the_same_within_the_epoch() {
        let store = Arc::new(MemoryStore::new());
        let member = joined(&store).await;
        goes_back(&*store, &member, None).await;
        let nobody = BTreeSet::new();
        let met = member.meet(Past::Pools, &nobody).await;
        assert_eq!(met.unwrap(), Meeting::Assert);
        let before = member.epoch();
        let own = store.get(&member.keys.host()).await.unwrap().unwrap();
        let gone = Operation::Delete(member.keys.host(), own.version);
        store.commit(Transaction::new([gone])).await.unwrap();
        let met = member.meet(Past::Pools, &nobody).await;
        assert_eq!(met.unwrap(), Meeting::Assert);
        assert_ne!(member.epoch(), before);
    }

    /// The store took a change, and its answer is on its way still.
    #[tokio::test]
    async fn an_own_change_that_shows_before_its_answer_is_no_second_process() {
        let store = Arc::new(Mute::default());
        let member = joined(&store).await;
        store.mute.store(true, Ordering::SeqCst);
        let mut sent = Box::pin(member.commit("0a", Vec::new()));
        tokio::select! {
            biased;
            _ = &mut sent => panic!("a mute store answered"),
            () = std::future::ready(()) => {}
        }
        let look = member.glance().await.unwrap();
        assert_eq!(look.own.as_ref().unwrap().record.operation, "0a");
        assert_eq!(member.settle(look), Verdict::Join);
    }
}
