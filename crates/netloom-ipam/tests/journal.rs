//! The journal alone: what was acknowledged comes back, what was torn is cut, what is damaged is
//! refused.
#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print their seed"
)]

mod common;

use common::disk::Trouble;
use common::{Random, SimDisk, seed};
use netloom_core::SystemClock;
use netloom_ipam::journal::{DirDisk, Disk, Fold, Journal, JournalError, JournalOptions, Upkeep};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Counts events by their content; the last of each kind is what counts.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Counts(BTreeMap<Vec<u8>, u64>);

impl Fold for Counts {
    fn apply(&mut self, event: &[u8]) -> Result<(), String> {
        let (count, name) = event.split_first_chunk::<8>().ok_or("too short")?;
        *self.0.entry(name.to_vec()).or_default() += u64::from_le_bytes(*count);
        Ok(())
    }

    fn dump(&self, sink: &mut dyn FnMut(&[u8])) {
        for (name, count) in &self.0 {
            sink(&event(*count, name));
        }
    }
}

fn event(count: u64, name: &[u8]) -> Vec<u8> {
    [&count.to_le_bytes()[..], name].concat()
}

fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes: 32 * 1024,
        upkeep: Upkeep::Inline,
    }
}

fn open(disk: &SimDisk) -> Result<(Journal, Counts), JournalError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Journal::open(disk, Arc::new(SystemClock::new()), options())
}

fn commit(journal: &Journal, name: &str) -> Result<(), Arc<JournalError>> {
    journal.append(&[&event(1, name.as_bytes())])?.wait()
}

#[test]
fn what_was_acknowledged_comes_back_over_many_segments() {
    let disk = SimDisk::default();
    let (journal, _) = open(&disk).unwrap();
    for n in 0..500 {
        commit(&journal, &format!("name-{}", n % 7)).unwrap();
    }
    assert!(
        disk.names().contains(&"snapshot".to_owned()),
        "{:?}",
        disk.names()
    );
    assert!(
        disk.names().len() < 6,
        "old segments pile up: {:?}",
        disk.names()
    );
    drop(journal);
    disk.lose_power(&mut Random(1));
    let (_, counts) = open(&disk).unwrap();
    assert_eq!(counts.0.values().sum::<u64>(), 500);
    assert_eq!(counts.0.len(), 7);
}

#[test]
fn a_torn_end_is_cut_at_every_byte_and_the_rest_stays() {
    let disk = SimDisk::default();
    let (journal, _) = open(&disk).unwrap();
    commit(&journal, "kept").unwrap();
    drop(journal);
    let before = disk.bytes("log-0000000000000001");
    let (journal, _) = open(&disk).unwrap();
    commit(&journal, "torn").unwrap();
    drop(journal);
    let after = disk.bytes("log-0000000000000001");
    let frame = 1024..1024 + 512;
    assert_ne!(before[frame.clone()], after[frame.clone()]);
    let payload_end = 1024 + 32 + 2 + 8 + 4;
    for cut in frame {
        let mut bytes = before.clone();
        bytes[1024..cut].copy_from_slice(&after[1024..cut]);
        disk.set_bytes("log-0000000000000001", bytes);
        let (journal, counts) = open(&disk).unwrap();
        assert_eq!(
            counts.0.len(),
            if cut < payload_end { 1 } else { 2 },
            "cut at {cut}"
        );
        commit(&journal, "next").unwrap();
        drop(journal);
        let (_, counts) = open(&disk).unwrap();
        assert!(counts.0.contains_key(&b"next"[..]), "cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_of_an_acknowledged_event_is_refused() {
    let disk = SimDisk::default();
    let (journal, _) = open(&disk).unwrap();
    for name in ["one", "two", "three"] {
        commit(&journal, name).unwrap();
    }
    drop(journal);
    let good = disk.bytes("log-0000000000000001");
    // Header, first and second frame; of the last frame nobody can tell damage from a torn write.
    for byte in (0..4).chain(512..512 + 40).chain(1024..1024 + 40) {
        let mut bytes = good.clone();
        bytes[byte] ^= 0x10;
        disk.set_bytes("log-0000000000000001", bytes);
        let error = open(&disk).unwrap_err();
        assert!(
            matches!(error, JournalError::Corrupt { .. }),
            "byte {byte}: {error}"
        );
    }
}

#[test]
fn a_missing_file_is_refused() {
    let disk = SimDisk::default();
    let (journal, _) = open(&disk).unwrap();
    for n in 0..200 {
        commit(&journal, &n.to_string()).unwrap();
    }
    drop(journal);
    let snapshot = disk.bytes("snapshot");
    disk.remove_file("snapshot");
    let error = open(&disk).unwrap_err().to_string();
    assert!(error.contains("are missing before it"), "{error}");
    let tail = disk
        .names()
        .into_iter()
        .find(|n| n.starts_with("log-"))
        .unwrap();
    disk.remove_file(&tail);
    disk.replace("snapshot", &snapshot).unwrap();
    let error = open(&disk).unwrap_err().to_string();
    assert!(error.contains("are missing"), "{error}");
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let disk = SimDisk::default();
    let (journal, _) = open(&disk).unwrap();
    commit(&journal, "good").unwrap();
    disk.trouble(Trouble::NextSync);
    let error = commit(&journal, "lost").unwrap_err();
    assert!(matches!(*error, JournalError::Poisoned { .. }), "{error}");
    let error = commit(&journal, "later").unwrap_err();
    assert!(error.to_string().contains("restart netloomd"), "{error}");
    assert!(journal.failure().is_some());
    drop(journal);
    disk.lose_power(&mut Random(3));
    let (_, counts) = open(&disk).unwrap();
    assert!(counts.0.contains_key(&b"good"[..]));
}

#[test]
fn a_full_disk_is_a_clear_error_and_goes_on_after_reopening() {
    let disk = SimDisk::default();
    let (journal, _) = open(&disk).unwrap();
    commit(&journal, "good").unwrap();
    disk.trouble(Trouble::NextWriteFull);
    // Longer than a sector, so that half of it is not whole.
    let error = commit(&journal, &"lost".repeat(200)).unwrap_err();
    assert!(matches!(*error, JournalError::Full { .. }), "{error}");
    drop(journal);
    let (journal, counts) = open(&disk).unwrap();
    assert_eq!(counts.0.len(), 1);
    commit(&journal, "again").unwrap();
    drop(journal);
    let (_, counts) = open(&disk).unwrap();
    assert_eq!(counts.0.len(), 2);
}

#[test]
fn a_disk_that_is_full_when_a_segment_ends_takes_more_after_reopening() {
    let disk = SimDisk::default();
    let (journal, _) = open(&disk).unwrap();
    disk.trouble(Trouble::Full);
    let mut acknowledged = 0;
    let error = loop {
        match commit(&journal, "x") {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(*error, JournalError::Full { .. }), "{error}");
    assert!(acknowledged > 60, "{acknowledged}");
    drop(journal);
    disk.trouble(Trouble::None);
    let (journal, _) = open(&disk).unwrap();
    commit(&journal, "x").unwrap();
    drop(journal);
    let (_, counts) = open(&disk).unwrap();
    assert_eq!(counts.0[&b"x"[..]], acknowledged + 1);
}

#[test]
fn random_power_cuts_lose_nothing_acknowledged() {
    let seed = seed();
    let mut random = Random(seed);
    let disk = SimDisk::default();
    let (mut journal, _) = open(&disk).unwrap();
    let mut acknowledged = 0u64;
    let mut doubtful = 0u64;
    for _ in 0..300 {
        let cut = u64::try_from(random.below(40)).unwrap();
        disk.trouble(Trouble::PowerLostAfter(cut));
        loop {
            let size = random.below(3000);
            match commit(&journal, &"y".repeat(size)) {
                Ok(()) => acknowledged += 1,
                Err(_) => break,
            }
        }
        drop(journal);
        disk.lose_power(&mut random);
        let (reopened, counts) = open(&disk).unwrap();
        let sum = counts.0.values().sum::<u64>();
        assert!(
            (acknowledged..=acknowledged + 1 + doubtful).contains(&sum),
            "seed {seed}: {sum} events, {acknowledged} acknowledged, {doubtful} doubtful"
        );
        doubtful = sum - acknowledged;
        journal = reopened;
    }
    assert!(acknowledged > 2000, "{acknowledged}");
}

#[test]
fn sixty_four_threads_share_syncs() {
    let disk = SimDisk::default();
    let (journal, _) = open(&disk).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..64 {
            let journal = &journal;
            scope.spawn(move || {
                for _ in 0..100 {
                    commit(journal, &format!("thread-{thread}")).unwrap();
                }
            });
        }
    });
    drop(journal);
    let (_, counts) = open(&disk).unwrap();
    assert_eq!(counts.0.len(), 64);
    assert!(counts.0.values().all(|count| *count == 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_give_up_waiting_hold_nobody_up() {
    let disk = SimDisk::default();
    let (journal, _) = open(&disk).unwrap();
    let journal = Arc::new(journal);
    let mut tasks = Vec::new();
    for n in 0..200u32 {
        let journal = Arc::clone(&journal);
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                let ticket = journal.append(&[&event(1, b"z")]).unwrap();
                if n % 3 == 0 {
                    // Polled once, perhaps called to lead, and dropped.
                    let waiting = ticket.durable();
                    tokio::pin!(waiting);
                    let _ = polled_once(waiting.as_mut()).await;
                } else {
                    ticket.durable().await.unwrap();
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    commit(&journal, "end").unwrap();
    drop(journal);
    let (_, counts) = open(&disk).unwrap();
    assert_eq!(counts.0[&b"z"[..]], 4000);
}

async fn polled_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    use std::task::Poll;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[test]
fn a_directory_has_one_user_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let first = DirDisk::open(directory.path()).unwrap();
    let second = DirDisk::open(directory.path()).unwrap_err();
    assert_eq!(second.kind(), std::io::ErrorKind::WouldBlock);
    drop(first);
    DirDisk::open(directory.path()).unwrap();
}

#[test]
fn a_real_directory_keeps_events_with_the_upkeep_in_the_background() {
    let directory = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        segment_bytes: 64 * 1024,
        upkeep: Upkeep::Background,
    };
    for round in 1..=3 {
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(directory.path()).unwrap());
        let ids = Arc::new(SystemClock::new());
        let (journal, counts) = Journal::open::<Counts>(disk, ids, options).unwrap();
        assert_eq!(counts.0.values().sum::<u64>(), (round - 1) * 400);
        for n in 0..400 {
            commit(&journal, &format!("{}", n % 5)).unwrap();
        }
    }
}

#[test]
fn an_event_that_is_too_large_is_refused_and_harms_nothing() {
    let disk = SimDisk::default();
    let (journal, _) = open(&disk).unwrap();
    let error = commit(&journal, &"x".repeat(5000)).unwrap_err();
    assert!(matches!(*error, JournalError::TooLarge { .. }), "{error}");
    commit(&journal, "x").unwrap();
}

/// Whether a waiting task was called.
#[derive(Debug, Default)]
struct Bell(std::sync::atomic::AtomicBool);

impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn a_caller_that_goes_away_takes_no_call_to_lead_with_it() {
    use std::task::{Context, Waker};
    let (journal, _) = open(&SimDisk::default()).unwrap();
    let ticket = || journal.append(&[&event(1, b"x")]).unwrap();
    // A frame of two, after which a leader lets others join before it writes.
    let both = [ticket(), ticket()];
    both.into_iter().for_each(|t| t.wait().unwrap());
    let mut leader = Box::pin(ticket().durable());
    let mut stays = Box::pin(ticket().durable());
    let mut leaves = Box::pin(ticket().durable());
    let bell = Arc::new(Bell::default());
    let (called, idle) = (Waker::from(Arc::clone(&bell)), Waker::noop());
    assert!(
        leader
            .as_mut()
            .poll(&mut Context::from_waker(idle))
            .is_pending()
    );
    assert!(
        stays
            .as_mut()
            .poll(&mut Context::from_waker(&called))
            .is_pending()
    );
    assert!(
        leaves
            .as_mut()
            .poll(&mut Context::from_waker(idle))
            .is_pending()
    );
    drop(leaves);
    drop(leader);
    assert!(
        bell.0.load(std::sync::atomic::Ordering::Relaxed),
        "nobody leads"
    );
}
