//! A store that does at once what it is told, and answers late: meanwhile the host sees its own change
//! in the store before it knows that it came about.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use async_trait::async_trait;
use common::TestStore;
use common::machine::*;
use netloom_core::store::{
    CommitError, Committed, Key, Store, StoreError, StoreIdentity, Transaction, Versioned, Watch,
};
use netloom_core::{ClusterAdmin, Standing};
use netloom_ipam::{AddressManager, Seams};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
struct AnswersLate(TestStore);

/// Below the time after which an outcome counts as unknown.
const LATE: Duration = Duration::from_secs(2);

#[async_trait]
impl Store for AnswersLate {
    async fn identity(&self) -> Result<StoreIdentity, StoreError> {
        self.0.identity().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreError> {
        self.0.get(key).await
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<(Key, Versioned)>, StoreError> {
        self.0.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let done = self.0.commit(transaction).await;
        tokio::time::sleep(LATE).await;
        done
    }

    async fn watch(&self, prefix: &Key) -> Result<Box<dyn Watch>, StoreError> {
        self.0.watch(prefix).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_sees_its_own_change_before_the_answer_takes_nobody_for_a_copy() {
    let store = initialised().await;
    let machine = Machine::new("h1", &store);
    let seams = Seams {
        store: Arc::new(AnswersLate(store.clone())),
        mirror: Some(Arc::new(machine.mirror.clone())),
        ..machine.host.seams()
    };
    let ipam = AddressManager::open(machine.config(), seams).await.unwrap();
    let ipam = Arc::new(ipam);
    let task = tokio::spawn(Arc::clone(&ipam).tend());
    // Each network is a commit that is under way most of the time, over many looks at the store.
    for n in 0..40 {
        network(&ipam, &format!("10.{n}.0.0/24")).await;
        let view = ipam.cluster().await;
        assert!(
            matches!(view.standing, Standing::Joined),
            "after {n} networks: {view:?}"
        );
    }
    task.abort();
}
