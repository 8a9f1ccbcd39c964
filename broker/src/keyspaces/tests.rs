//! The laws of what a crash leaves: what was safe on disk is there, or nothing is opened; what was not is gone whole, and
//! said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::io::Read;
use std::sync::Arc;

use proptest::prelude::*;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

use super::*;

static LAYOUT: Layout = Layout {
    keyspaces: &[KeyspaceLayout { name: "plain", apart: false }, KeyspaceLayout { name: "apart", apart: true }],
    memtable_bytes: 8 << 20,
    journal_bytes: 64 << 20,
    cache_bytes: 1 << 20,
    threads: Some(1),
    reserve: 0,
};

/// Notes what is said in the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("wf_broker")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        struct Fields<'a>(&'a mut String);
        impl Visit for Fields<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                write!(self.0, " {field}={value:?}").unwrap();
            }
        }
        let mut log = self.0.lock();
        write!(log, "{}", event.metadata().level()).unwrap();
        event.record(&mut Fields(&mut log));
        log.push('\n');
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// A database whose commits are known.
struct Made {
    home: tempfile::TempDir,
    /// Where each commit ends in the journal.
    ends: Vec<usize>,
}

fn commit(keyspaces: &Keyspaces, n: u8, durability: Durability) {
    let change = |keyspace, value: Bytes| Change { keyspace, key: vec![b'k', n], value: Some(value) };
    // Some bytes are zero, as in what people send.
    let value: Bytes = (0..20_000_usize).map(|at| (at % 7) as u8 * n).collect::<Vec<_>>().into();
    keyspaces.commit([change(0, Bytes::from_static(b"small")), change(1, value)], durability).unwrap();
}

impl Made {
    /// Commits as many as there are.
    fn of(commits: &[Durability]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut made = Self { home, ends: Vec::new() };
        let keyspaces = Keyspaces::open(&made.database(), &LAYOUT).unwrap();
        for (n, durability) in commits.iter().enumerate() {
            commit(&keyspaces, n as u8 + 1, *durability);
            let mut journal = Vec::new();
            fs::File::open(made.journal(0)).unwrap().take(1 << 20).read_to_end(&mut journal).unwrap();
            made.ends.push(journal.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        }
        drop(keyspaces);
        // Most of it are zeros: fewer do.
        fs::OpenOptions::new().write(true).open(made.journal(0)).unwrap().set_len(1 << 20).unwrap();
        made
    }

    fn synced(commits: usize) -> Self {
        Self::of(&vec![Durability::Synced; commits])
    }

    fn database(&self) -> PathBuf {
        self.home.path().join("db")
    }

    fn journal(&self, number: u32) -> PathBuf {
        self.database().join(format!("{number}.jnl"))
    }

    /// Where commit `n` is in the journal, the first being 1.
    fn place(&self, n: usize) -> std::ops::Range<usize> {
        n.checked_sub(2).map_or(0, |before| self.ends[before])..self.ends[n - 1]
    }

    fn harm(&self, harm: impl FnOnce(&mut Vec<u8>)) {
        let mut journal = fs::read(self.journal(0)).unwrap();
        harm(&mut journal);
        fs::write(self.journal(0), journal).unwrap();
    }

    /// Which commits are there when it is opened, and what was said.
    fn open(&self) -> Result<(Vec<u8>, String), KeyspacesError> {
        let log = Log::default();
        let keyspaces = tracing::subscriber::with_default(log.clone(), || Keyspaces::open(&self.database(), &LAYOUT))?;
        let numbers = |keyspace| {
            let keys = keyspaces.keys(keyspace, &KeyRange::prefix(b"k"), 99).unwrap();
            keys.iter().map(|key| key[1]).collect::<Vec<_>>()
        };
        assert_eq!(numbers(0), numbers(1), "whole or not at all");
        for n in numbers(1) {
            let value = keyspaces.get(1, &[b'k', n]).unwrap().unwrap();
            assert!(value.len() == 20_000 && value.iter().enumerate().all(|(at, byte)| *byte == (at % 7) as u8 * n));
        }
        let (there, said) = (numbers(0), log.0.lock().clone());
        // What is committed next stays.
        commit(&keyspaces, 40, Durability::Synced);
        drop(keyspaces);
        let keyspaces = Keyspaces::open(&self.database(), &LAYOUT).unwrap();
        assert_eq!(keyspaces.last_key(0, &KeyRange::all()).unwrap().unwrap(), [b'k', 40][..]);
        Ok((there, said))
    }

    fn aside(&self) -> usize {
        let names = fs::read_dir(self.home.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("damaged-journal-")).count()
    }
}

#[test]
fn what_is_whole_is_opened_without_a_word() {
    assert_eq!(Made::synced(3).open().unwrap(), (vec![1, 2, 3], String::new()));
    use Durability::{Buffered, Synced};
    assert_eq!(Made::of(&[Buffered, Buffered, Synced, Buffered]).open().unwrap(), (vec![1, 2, 3, 4], String::new()));
}

#[test]
fn a_commit_that_was_begun_is_cut_off_and_said() {
    let size = Made::synced(3).place(3).len();
    // In its start, in the head of a change, in a value, in its end; and with zeros behind, as journals are made.
    for (left, zeros) in [(1, 0), (10, 50), (30, 0), (8_192, 50_000), (size - 1, 0), (size - 12, 50), (size - 13, 0)] {
        let made = Made::synced(3);
        let start = made.place(3).start;
        made.harm(|journal| {
            journal.truncate(start + left);
            journal.resize(start + left + zeros, 0);
        });
        let (there, said) = made.open().unwrap();
        assert_eq!((there, made.aside()), (vec![1, 2], 0), "{left} bytes of {size}");
        assert!(said.starts_with("WARN") && said.contains(&format!(" at={start} bytes=")), "{said}");
    }
}

#[test]
fn a_commit_torn_in_its_middle_is_cut_off_and_kept_aside() {
    let size = Made::synced(3).place(3).len();
    // Pages of it are missing: its first, one in the middle, all but its last.
    for torn in [0..4_096, 8_192..12_288, 0..size - 5, 100..size - 13] {
        let made = Made::synced(3);
        let start = made.place(3).start;
        made.harm(|journal| journal[start + torn.start..start + torn.end].fill(0));
        let (there, said) = made.open().unwrap();
        assert_eq!((there, made.aside()), (vec![1, 2], 1), "without {torn:?}");
        assert!(said.starts_with("WARN") && said.contains(&format!(" at={start} bytes={size} ")), "{said}");
    }
}

#[test]
fn what_was_safe_is_never_cut() {
    for (n, at) in [(1, 0), (1, 5_000), (2, 0), (2, 3), (2, 14), (2, 10_000)] {
        let made = Made::synced(3);
        let place = made.place(n);
        made.harm(|journal| journal[place.start + at] ^= 0x40);
        let before = fs::read(made.journal(0)).unwrap();
        let error = made.open().unwrap_err();
        let found = matches!(&error, KeyspacesError::Corrupt { journal, at, later, next } if journal == later
            && *journal == made.journal(0) && *at == place.start as u64 && *next == place.end as u64);
        assert!(found && error.is_damage(), "{error:?}");
        assert!(error.to_string().contains("0.jnl is damaged at byte"), "{error}");
        assert!(before == fs::read(made.journal(0)).unwrap(), "it is as it was");
    }
}

#[test]
fn commits_that_were_not_synced_yet_may_be_torn_anywhere() {
    use Durability::{Buffered, Synced};
    // None of 2, 3 and 4 was safe when the power went, though 4 asked for it.
    let made = Made::of(&[Synced, Buffered, Buffered, Synced]);
    let torn = made.place(2).start + 4_096;
    made.harm(|journal| journal[torn..torn + 4_096].fill(0));
    assert_eq!((made.open().unwrap().0, made.aside()), (vec![1], 1));
    // But if another was made after 4, they were.
    let made = Made::of(&[Synced, Buffered, Buffered, Synced, Buffered]);
    made.harm(|journal| journal[torn..torn + 4_096].fill(0));
    let next = made.place(5).start as u64;
    assert!(matches!(made.open(), Err(KeyspacesError::Corrupt { next: found, .. }) if found == next));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// When the power goes, any sectors may be missing of what was written since the last sync.
    #[test]
    fn any_part_that_was_not_synced_may_be_missing(
        synced in 1_usize..3,
        unsynced in 1_usize..4,
        missing in proptest::collection::vec(any::<bool>(), 160),
    ) {
        let commits = [vec![Durability::Synced; synced], vec![Durability::Buffered; unsynced]].concat();
        let made = Made::of(&commits);
        let safe = made.ends[synced - 1];
        made.harm(|journal| {
            // A sector that the last safe commit ends in was written twice, and is there as it was or as it is.
            let sectors = journal[safe..].chunks_mut(512).zip(&missing).filter(|(_, missing)| **missing);
            sectors.for_each(|(sector, _)| sector.fill(0));
        });
        let (there, _) = made.open().unwrap();
        let first: Vec<u8> = (1..=there.len() as u8).collect();
        prop_assert!(there.len() >= synced && there == first, "{there:?} of {synced} and {unsynced}");
    }
}

#[test]
fn what_a_later_journal_holds_was_made_when_the_earlier_was_safe() {
    let made = Made::synced(4);
    let journal = fs::read(made.journal(0)).unwrap();
    let split = made.place(3).start;
    let lay_out = |earlier: &[u8], later: &[u8]| {
        fs::write(made.journal(0), earlier).unwrap();
        fs::write(made.journal(1), later).unwrap();
    };
    lay_out(&journal[..split - 100], &journal[split..]);
    let error = made.open().unwrap_err();
    let found = matches!(&error, KeyspacesError::Corrupt { journal, later, .. } if *journal == made.journal(0) && *later == made.journal(1));
    assert!(found, "{error:?}");
    // A journal that was begun, and nothing in it.
    lay_out(&journal[..split - 100], &[0; 4_096]);
    assert_eq!(made.open().unwrap().0, [1]);
}

#[test]
fn opened_anew_it_is_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let keyspaces = Keyspaces::open(&home.path().join("db"), &LAYOUT).unwrap();
    for n in 1..4 {
        commit(&keyspaces, n, Durability::Buffered);
        keyspaces.reopen().unwrap();
    }
    assert_eq!(keyspaces.keys(0, &KeyRange::all(), 9).unwrap().len(), 3);
    // What cannot be opened is closed until it can.
    let (version, moved) = (home.path().join("db/version"), home.path().join("version"));
    fs::rename(&version, &moved).unwrap();
    fs::create_dir(&version).unwrap();
    keyspaces.reopen().unwrap_err();
    assert!(keyspaces.get(0, b"k").unwrap_err().is_mendable());
    fs::remove_dir(&version).unwrap();
    fs::rename(&moved, &version).unwrap();
    keyspaces.reopen().unwrap();
    assert_eq!(keyspaces.keys(0, &KeyRange::all(), 9).unwrap().len(), 3);
}

#[test]
fn without_room_what_was_removed_is_cleared_from_the_disk() {
    let home = tempfile::tempdir().unwrap();
    let disk = rustix::fs::statvfs(home.path()).unwrap();
    let reserve = disk.f_bavail * disk.f_frsize / 4 * 5;
    let layout: &Layout = Box::leak(Box::new(Layout { memtable_bytes: 1 << 20, reserve, ..LAYOUT }));
    let keyspaces = Keyspaces::open(&home.path().join("db"), layout).unwrap();
    let change = |n, value| Change { keyspace: 1, key: vec![b'k', n], value };
    let values = || {
        let folders = fs::read_dir(home.path().join("db/keyspaces")).unwrap().map(|entry| entry.unwrap().path().join("blobs"));
        let files = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten();
        files.map(|file| file.unwrap().metadata().map_or(0, |file| file.len())).sum::<u64>()
    };
    let begun = std::time::Instant::now();
    let wait_until = |done: &dyn Fn() -> bool| {
        while !done() {
            assert!(begun.elapsed().as_secs() < 30, "{} bytes are there", values());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    for n in 0..12 {
        keyspaces.commit([change(n, Some(vec![n; 1 << 20].into()))], Durability::Buffered).unwrap();
    }
    wait_until(&|| values() > 10 << 20);
    // This is so little that nothing is written that would clear what it removes.
    keyspaces.commit((0..12).map(|n| change(n, None)), Durability::Buffered).unwrap();
    wait_until(&|| keyspaces.room() == Room::Little && values() < 3 << 20);
    assert!(keyspaces.keys(1, &KeyRange::all(), 99).unwrap().is_empty());
}
