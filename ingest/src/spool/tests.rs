//! The laws of the spool: what was answered is there, whatever happens after it; what is there is shipped in order;
//! what cannot be used is kept aside; what does not fit is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use proptest::prelude::*;
use wf_broker::DiskError;
use wf_schema::BatchId;

use super::store::{Change, LAYOUT};
use super::*;

/// A disk in memory, that remembers every commit: a crash leaves any number of the first.
#[derive(Clone, Default)]
struct Memory(Arc<MemoryInner>);

#[derive(Default)]
struct MemoryInner {
    commits: Mutex<Vec<Vec<Change>>>,
    /// Commits that fail from now on, with an error that says so.
    failing: AtomicUsize,
    taken: AtomicU64,
}

type Pairs = BTreeMap<(u8, Vec<u8>), Bytes>;

impl Memory {
    /// What is left when only the first `commits` were made.
    fn cut(&self, commits: usize) -> Self {
        let cut = Self::default();
        *cut.0.commits.lock() = self.0.commits.lock()[..commits].to_vec();
        cut
    }

    fn commits(&self) -> usize {
        self.0.commits.lock().len()
    }

    fn state(&self) -> Pairs {
        let mut pairs = Pairs::new();
        for change in self.0.commits.lock().iter().flatten().cloned() {
            let key = (change.space as u8, change.key);
            match change.value {
                Some(value) => drop(pairs.insert(key, value)),
                None => drop(pairs.remove(&key)),
            }
        }
        pairs
    }

    fn spool(&self, limit: u64) -> Spool {
        Spool::on(Arc::new(self.clone()), limit, Spool::own_thread).unwrap()
    }
}

impl Store for Memory {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, DiskError> {
        Ok(self.state().get(&(space as u8, key.to_vec())).cloned())
    }

    fn pairs(&self, space: Space, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, DiskError> {
        let state = self.state();
        let range = state.range((space as u8, from.max(prefix).to_vec())..);
        let own = range.take_while(|((of, key), _)| *of == space as u8 && key.starts_with(prefix));
        Ok(own.take(limit).map(|((_, key), value)| (key.clone().into(), value.clone())).collect())
    }

    fn commit(&self, changes: Vec<Change>) -> Result<(), DiskError> {
        if self.0.failing.load(SeqCst) > 0 {
            self.0.failing.fetch_sub(1, SeqCst);
            return Err(DiskError::new(std::io::Error::from(std::io::ErrorKind::StorageFull)));
        }
        self.0.commits.lock().push(changes);
        Ok(())
    }

    fn reopen(&self) -> Result<(), SpoolError> {
        Ok(())
    }

    fn has_room(&self) -> bool {
        u64::MAX - self.0.taken.load(SeqCst) >= LAYOUT.reserve
    }
}

fn name(n: usize) -> String {
    BatchId::from(n as u128).to_string()
}

fn envelope(lane: &str, n: usize, size: usize) -> Envelope {
    let bytes = (0..size).map(|at| (at * 7 + n) as u8).collect::<Vec<_>>().into();
    Envelope {
        lane: lane.parse().unwrap(),
        id: name(n).into(),
        due: n.is_multiple_of(3).then_some(n as u64),
        first: 0,
        jobs: 2,
        batch: BatchId::from(n as u128),
        made_at: BatchId::from(n as u128).millis(),
        remember: n as u32,
        bytes,
    }
}

/// All that waits, page by page, as if it was shipped and not answered.
fn taken(spool: &Spool) -> Vec<Taken> {
    std::iter::from_fn(|| spool.0.shared.next_page().ok()).flatten().collect()
}

/// The ids of all that waits, by lane.
fn ids(spool: &Spool) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for taken in taken(spool) {
        found.entry(taken.slot.lane.to_string()).or_default().push(taken.envelope.unwrap().id.to_string());
    }
    found
}

async fn mark(spool: &Spool, entries: Vec<(Slot, Record)>) {
    spool.tell(|answer| Op::Mark { entries, answer }).await.unwrap();
}

async fn remove(spool: &Spool, entries: Vec<(Slot, Record)>) {
    spool.0.ops.send(Op::Remove(entries)).unwrap();
    // Answered behind it.
    mark(spool, Vec::new()).await;
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, usize),
    PutTogether(u8),
    ShipOne,
    Ship,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u8..3, 0_usize..600).prop_map(|(lane, size)| Step::Put(lane, size)),
        1 => (2_u8..5).prop_map(Step::PutTogether),
        2 => Just(Step::ShipOne),
        1 => Just(Step::Ship),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Against a model: what is in it, in which order, how much that is; and, cut off after each commit, that all that
    /// was answered by then is there, that what was marked is marked, and that nothing comes back.
    #[test]
    fn what_was_answered_is_there_after_any_crash(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async move {
            let disk = Memory::default();
            let mut spool = disk.spool(1 << 20);
            // By lane: the ids that were answered and not removed, and, for each number of commits, how it was then.
            let mut model: BTreeMap<String, Vec<String>> = BTreeMap::new();
            let mut history = vec![(0, model.clone())];
            let mut n = 0;
            for step in steps {
                match step {
                    Step::Put(lane, size) => {
                        let lane = format!("q{lane}.normal");
                        spool.put(vec![envelope(&lane, n, size)], false).await.unwrap();
                        model.entry(lane).or_default().push(name(n));
                        n += 1;
                    }
                    Step::PutTogether(count) => {
                        let lanes: Vec<_> = (0..count).map(|lane| format!("q{lane}.normal")).collect();
                        let all = lanes.iter().enumerate().map(|(at, lane)| envelope(lane, n + at, 50)).collect();
                        spool.put(all, true).await.unwrap();
                        for lane in lanes {
                            model.entry(lane).or_default().push(name(n));
                            n += 1;
                        }
                    }
                    Step::ShipOne | Step::Ship => {
                        let mut page = spool.0.shared.next_page().unwrap_or_default();
                        let rest = if matches!(step, Step::ShipOne) { page.split_off(page.len().min(1)) } else { Vec::new() };
                        rest.iter().for_each(|taken| spool.0.shared.ledger.lock().give_back(&taken.slot));
                        let entries: Vec<_> = page.into_iter().map(|taken| (taken.slot, taken.record.unwrap())).collect();
                        mark(&spool, entries.iter().filter(|(_, record)| !record.sent).cloned().collect()).await;
                        history.push((disk.commits(), model.clone()));
                        let entries: Vec<_> = entries.into_iter().map(|(slot, record)| (slot, Record { sent: true, ..record })).collect();
                        for (slot, record) in &entries {
                            let lane = model.get_mut(&slot.lane.to_string()).unwrap();
                            assert_eq!(&lane.remove(0), &record.id, "in order");
                        }
                        remove(&spool, entries).await;
                    }
                    Step::Reopen => {
                        spool.close().await.unwrap();
                        spool = disk.spool(1 << 20);
                    }
                }
                model.retain(|_, ids| !ids.is_empty());
                history.push((disk.commits(), model.clone()));
                let (stats, count) = (spool.stats(), model.values().map(Vec::len).sum::<usize>() as u64);
                assert_eq!((stats.batches, stats.jobs), (count, 2 * count));
                assert_eq!(stats.bytes == 0, count == 0);
            }
            for (commits, model) in history {
                let crashed = disk.cut(commits).spool(1 << 20);
                assert_eq!(ids(&crashed), model);
            }
            assert_eq!(ids(&spool), model);
        });
    }
}

#[tokio::test]
async fn what_is_marked_stays_marked() {
    let disk = Memory::default();
    let spool = disk.spool(1 << 20);
    spool.put(vec![envelope("q.normal", 0, 10), envelope("q.normal", 1, 10)], false).await.unwrap();
    spool.put(vec![envelope("q.normal", 2, 10)], true).await.unwrap();
    assert_eq!(spool.stats().unconfirmed, 1);
    let mut page = taken(&spool);
    let first = page.remove(0);
    mark(&spool, vec![(first.slot, first.record.unwrap())]).await;
    assert_eq!(spool.stats().unconfirmed, 2);
    let again = disk.cut(disk.commits()).spool(1 << 20);
    assert_eq!(again.stats().unconfirmed, 2);
    let sent: Vec<bool> = taken(&again).into_iter().map(|taken| taken.record.unwrap().sent).collect();
    assert_eq!(sent, [true, false, true]);
}

#[tokio::test]
async fn it_never_holds_more_than_it_may() {
    let spool = Memory::default().spool(10_000);
    let puts = (0..50).map(|n| spool.put(vec![envelope("q.normal", n, 500)], false));
    let put = futures::future::join_all(puts).await;
    let (fine, refused): (Vec<_>, Vec<_>) = put.into_iter().partition(Result::is_ok);
    assert_eq!((fine.len(), refused.len()), (15, 35), "628 bytes each");
    assert!(refused.into_iter().all(|refused| matches!(refused, Err(SpoolError::Full { limit: 10_000 }))));
    let stats = spool.stats();
    assert_eq!((stats.batches, stats.bytes), (15, 15 * 628));
    // What is shipped makes room.
    let entries: Vec<_> = taken(&spool).into_iter().map(|taken| (taken.slot, taken.record.unwrap())).collect();
    remove(&spool, entries).await;
    assert_eq!((spool.stats().bytes, spool.stats().shipped), (0, 30));
    spool.put(vec![envelope("q.normal", 0, 500)], false).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_and_lets_what_is_there_leave() {
    let disk = Memory::default();
    let spool = disk.spool(1 << 20);
    spool.put(vec![envelope("q.normal", 0, 10)], false).await.unwrap();
    // Nearly nothing is free: nothing more is taken, and no write is tried.
    disk.0.taken.store(u64::MAX - 1_000, SeqCst);
    let before = disk.commits();
    assert!(matches!(spool.put(vec![envelope("q.normal", 1, 10)], false).await, Err(SpoolError::NoSpace)));
    assert_eq!((disk.commits(), spool.stats().batches), (before, 1));
    let first = taken(&spool).remove(0);
    mark(&spool, vec![(first.slot.clone(), first.record.clone().unwrap())]).await;
    remove(&spool, vec![(first.slot, first.record.unwrap())]).await;
    assert_eq!(spool.stats().batches, 0);
    // A write that fails is told of, and the database is opened anew.
    disk.0.taken.store(0, SeqCst);
    disk.0.failing.store(1, SeqCst);
    assert!(matches!(spool.put(vec![envelope("q.normal", 2, 10)], false).await, Err(SpoolError::NoSpace)));
    assert!(matches!(spool.put(vec![envelope("q.normal", 3, 10)], false).await, Err(SpoolError::NoSpace)), "not at once");
    assert_eq!(spool.stats().bytes, 0);
    while spool.put(vec![envelope("q.normal", 4, 10)], false).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ids(&spool).values().flatten().cloned().collect::<Vec<_>>(), [name(4)]);
}

#[tokio::test]
async fn what_is_given_back_comes_again_in_order_and_only_once() {
    let spool = Memory::default().spool(1 << 20);
    for n in 0..10 {
        spool.put(vec![envelope("q.normal", n, 10)], false).await.unwrap();
    }
    let all = taken(&spool);
    assert!(!spool.waits(&"q.normal".parse().unwrap()), "all of it is on its way");
    for taken in [&all[7], &all[3]] {
        spool.0.shared.ledger.lock().give_back(&taken.slot);
    }
    assert!(spool.waits(&"q.normal".parse().unwrap()));
    assert_eq!(ids(&spool)["q.normal"], [name(3), name(7)]);
}

#[tokio::test]
async fn a_full_lane_holds_up_no_other() {
    let spool = Memory::default().spool(1 << 20);
    let (full, other): (Lane, Lane) = ("full.normal".parse().unwrap(), "other.normal".parse().unwrap());
    spool.put(vec![envelope("full.normal", 0, 10), envelope("other.normal", 1, 10)], false).await.unwrap();
    spool.0.shared.ledger.lock().hold(&full, Instant::now(), Duration::from_secs(60), true);
    assert_eq!(ids(&spool).into_keys().collect::<Vec<_>>(), ["other.normal"]);
    assert!(spool.full(&full).is_some() && spool.full(&other).is_none());
    let soonest = spool.0.shared.next_page().err().unwrap();
    assert!(soonest.is_some(), "it knows when to look again");
}

#[tokio::test]
async fn what_is_damaged_is_kept_aside_and_the_rest_goes_on() {
    let disk = Memory::default();
    let spool = disk.spool(1 << 20);
    for n in 0..4 {
        spool.put(vec![envelope("q.normal", n, 100)], false).await.unwrap();
    }
    spool.close().await.unwrap();
    let records: Vec<_> = disk.state().into_iter().filter(|((space, _), _)| *space == Space::Records as u8).collect();
    let ((_, key), value) = &records[1];
    let mut broken = value.to_vec();
    broken[5] ^= 1;
    disk.commit(vec![
        Change::put(Space::Records, key.clone(), broken.into()),
        Change::put(Space::Messages, Slot::read(&records[2].0.1).unwrap().message_key(), Bytes::from_static(b"other")),
        Change::remove(Space::Messages, Slot::read(&records[3].0.1).unwrap().message_key()),
    ])
    .unwrap();
    let spool = disk.spool(1 << 20);
    assert_eq!(spool.stats().batches, 4);
    let page = taken(&spool);
    let damage: Vec<_> = page.iter().map(|taken| taken.envelope.as_ref().err().copied()).collect();
    assert_eq!(damage, [None, Some(Damage::Record), Some(Damage::Message), Some(Damage::Missing)]);
    for Taken { slot, record, .. } in page.into_iter().skip(1) {
        spool.0.ops.send(Op::SetAside { slot, record }).unwrap();
    }
    mark(&spool, Vec::new()).await;
    assert_eq!((spool.stats().batches, spool.stats().aside), (1, 3));
    let again = disk.cut(disk.commits()).spool(1 << 20);
    assert_eq!((again.stats().batches, again.stats().aside), (1, 3));
    assert_eq!(ids(&again)["q.normal"], [name(0)]);
}

/// Copies the folder of a spool as it is now, as a loss of power would leave it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The journal of a spool that is written to.
fn journal(of: &Path) -> std::path::PathBuf {
    let journals = fs::read_dir(of.join("db")).unwrap().map(|entry| entry.unwrap().path());
    journals.filter(|path| path.extension().is_some_and(|extension| extension == "jnl")).max().unwrap()
}

async fn on_disk(path: &Path) -> Spool {
    Spool::open(SpoolOptions { path: path.to_owned(), bytes: 1 << 30 }).await.unwrap()
}

#[tokio::test]
async fn on_disk_what_was_answered_survives_and_torn_tails_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let spool = on_disk(&path).await;
    for n in 0..5 {
        spool.put(vec![envelope("q.normal", n, 2_000)], false).await.unwrap();
    }
    let whole = folder.path().join("whole");
    copy(&path, &whole);
    spool.put(vec![envelope("q.normal", 5, 2_000)], false).await.unwrap();
    let torn = folder.path().join("torn");
    copy(&path, &torn);
    // Where they differ is where the last put was written; the end of it is torn off.
    let (before, after) = (fs::read(journal(&whole)).unwrap(), fs::read(journal(&torn)).unwrap());
    let start = before.iter().zip(&after).position(|(before, after)| before != after).unwrap();
    fs::OpenOptions::new().write(true).open(journal(&torn)).unwrap().set_len(start as u64 + 1_000).unwrap();
    for (path, count) in [(&whole, 5), (&torn, 5), (&path, 6)] {
        if path == &folder.path().join("spool") {
            spool.close().await.unwrap();
        }
        let opened = on_disk(path).await;
        let expected: Vec<String> = (0..count).map(name).collect();
        assert_eq!(ids(&opened)["q.normal"], expected);
        opened.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_database_is_kept_aside_and_the_spool_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let spool = on_disk(&path).await;
    spool.put(vec![envelope("q.normal", 0, 2_000)], false).await.unwrap();
    spool.close().await.unwrap();
    fs::write(path.join("db/version"), b"nonsense").unwrap();
    let spool = on_disk(&path).await;
    assert_eq!(spool.stats().batches, 0);
    spool.put(vec![envelope("q.normal", 1, 2_000)], false).await.unwrap();
    let aside = fs::read_dir(&path)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("damaged-db-"));
    assert_eq!(aside.count(), 1);
}

/// The power may go when the end of a commit is on disk and its middle is not.
#[tokio::test]
async fn a_commit_that_is_torn_in_its_middle_takes_no_other_along() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let spool = on_disk(&path).await;
    for n in 0..5 {
        spool.put(vec![envelope("q.normal", n, 20_000)], false).await.unwrap();
    }
    let before = folder.path().join("before");
    copy(&path, &before);
    spool.put(vec![envelope("q.normal", 5, 20_000)], false).await.unwrap();
    spool.close().await.unwrap();
    let (old, mut new) = (fs::read(journal(&before)).unwrap(), fs::read(journal(&path)).unwrap());
    let start = old.iter().zip(&new).position(|(old, new)| old != new).unwrap();
    new[start + 8_192..start + 12_288].fill(0);
    fs::write(journal(&path), new).unwrap();
    let opened = on_disk(&path).await;
    assert_eq!(ids(&opened)["q.normal"], [name(0), name(1), name(2), name(3), name(4)]);
    let aside = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("damaged-journal-");
    assert_eq!(fs::read_dir(&path).unwrap().filter(|entry| aside(entry.as_ref().unwrap())).count(), 1);
    opened.put(vec![envelope("q.normal", 6, 10)], false).await.unwrap();
}

#[tokio::test]
async fn it_is_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let spool = on_disk(folder.path()).await;
    let options = SpoolOptions { path: folder.path().to_owned(), bytes: 1 << 20 };
    let error = Spool::open(options.clone()).await.unwrap_err();
    assert!(matches!(error, SpoolError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    spool.close().await.unwrap();
    assert!(matches!(spool.put(vec![envelope("q.normal", 0, 1)], false).await, Err(SpoolError::Closed)));
    Spool::open(options).await.unwrap();
}
