//! Keyed records: changed by compare-and-set, gone when their time is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;

use super::Rig;
use super::names::{key, noise};
use super::patience::{A_WHILE, ROUNDING, let_pass, until, within};
use crate::{Broker, BrokerError, Entry, Key, Result, Revision};

async fn create(broker: &Arc<dyn Broker>, key: &Key, bytes: impl Into<Bytes>, ttl: Option<Duration>) -> Result<Revision> {
    within("an answer", broker.create(key.clone(), bytes.into(), ttl)).await
}

async fn update(
    broker: &Arc<dyn Broker>,
    key: &Key,
    at: Revision,
    bytes: &'static str,
    ttl: Option<Duration>,
) -> Result<Revision> {
    within("an answer", broker.update(key.clone(), at, bytes.into(), ttl)).await
}

async fn delete(broker: &Arc<dyn Broker>, key: &Key, at: Revision) -> Result<()> {
    within("an answer", broker.delete(key.clone(), at)).await
}

async fn get(broker: &Arc<dyn Broker>, key: &Key) -> Option<Entry> {
    within("an answer", broker.get(key.clone())).await.unwrap()
}

/// Waits until reading shows `wanted`: a read may come from a replica.
async fn shows(broker: &Arc<dyn Broker>, key: &Key, wanted: Option<(&'static str, Revision)>) {
    let wanted = wanted.map(|(bytes, revision)| Entry { bytes: bytes.into(), revision });
    until("the record shows", async || (get(broker, key).await == wanted).then_some(())).await;
}

#[track_caller]
fn fenced<T: std::fmt::Debug>(answer: Result<T>) {
    assert!(matches!(answer, Err(BrokerError::Fenced)), "should have been fenced: {answer:?}");
}

/// A record is created once, replaced and removed where it stands, and fenced elsewhere; every node sees it.
pub async fn a_record_is_changed_where_it_stands(rig: &dyn Rig) {
    let (broker, other) = (rig.open().await, rig.open().await);
    let key = key("record");
    assert_eq!(get(&broker, &key).await, None);
    let first = create(&broker, &key, "one", None).await.unwrap();
    fenced(create(&other, &key, "one", None).await);
    shows(&other, &key, Some(("one", first))).await;

    let second = update(&other, &key, first, "two", None).await.unwrap();
    assert!(second > first);
    fenced(update(&broker, &key, first, "no", None).await);
    fenced(update(&broker, &key, Revision(second.0 + 1_000), "no", None).await);
    fenced(delete(&broker, &key, first).await);
    fenced(create(&broker, &key, "no", None).await);
    shows(&broker, &key, Some(("two", second))).await;

    delete(&broker, &key, second).await.unwrap();
    shows(&other, &key, None).await;
}

/// A record that is gone is fenced for changes, can be created again, and uses no revision twice.
pub async fn a_record_that_is_gone_can_be_created_again(rig: &dyn Rig) {
    let broker = rig.open().await;
    let key = key("record");
    let mut last = Revision(0);
    for _ in 0..3 {
        let created = create(&broker, &key, "here", None).await.unwrap();
        assert!(created > last, "{created:?} after {last:?}");
        delete(&broker, &key, created).await.unwrap();
        fenced(update(&broker, &key, created, "no", None).await);
        fenced(delete(&broker, &key, created).await);
        shows(&broker, &key, None).await;
        last = created;
    }
}

/// What never was is fenced for changes.
pub async fn what_never_was_cannot_be_changed(rig: &dyn Rig) {
    let broker = rig.open().await;
    for revision in [Revision(0), Revision(1), Revision(12_345_678)] {
        fenced(update(&broker, &key("record"), revision, "no", None).await);
        fenced(delete(&broker, &key("record"), revision).await);
    }
}

/// Of many that create, update or delete at once, one wins.
pub async fn of_many_writers_one_wins(rig: &dyn Rig) {
    let nodes = [rig.open().await, rig.open().await];
    let key = key("record");
    let one = |answers: Vec<Result<Revision>>| {
        let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "{won:?}");
        lost.into_iter().for_each(fenced);
        won.into_iter().next().unwrap().unwrap()
    };
    let created = one(join_all((0..16).map(|n| create(&nodes[n % 2], &key, "mine", None))).await);
    let updated = one(join_all((0..16).map(|n| update(&nodes[n % 2], &key, created, "mine", None))).await);
    let deleted = join_all((0..16).map(|n| delete(&nodes[n % 2], &key, updated))).await;
    one(deleted.into_iter().map(|answer| answer.map(|()| updated)).collect());
}

/// Keys are apart: those that begin alike, differ in case, or are as long as may be; contents are any bytes.
pub async fn keys_are_apart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let base = key("Aa-_09");
    let longest = format!("{base}.{}", "k".repeat(Key::MAX_LEN - base.as_str().len() - 1));
    let texts = [base.to_string(), format!("{base}.a"), format!("{base}.A"), format!("{base}.a.b"), longest];
    let keys = texts.map(|text| Key::new(&text).unwrap());
    let contents = [Bytes::new(), Bytes::from_static(b"\0\xff\r\n"), noise(1), noise(1_000), noise(50_000)];
    for (key, bytes) in keys.iter().zip(&contents) {
        create(&broker, key, bytes.clone(), None).await.unwrap();
    }
    for (key, bytes) in keys.iter().zip(&contents) {
        let told = until("the record shows", async || get(&broker, key).await).await;
        assert!(told.bytes == *bytes, "{key} reads otherwise than it was written");
    }
}

/// How long after `since` `key` is gone, no less than it was, if rounded.
async fn gone(broker: &Arc<dyn Broker>, key: &Key, since: Instant) -> Duration {
    until("the record is gone", async || get(broker, key).await.is_none().then_some(())).await;
    since.elapsed() + ROUNDING
}

/// A record outlives its time to live, of whole seconds rounded up, and not much more; a record without stays. What
/// has outlived its time is fenced for changes and can be created again.
pub async fn a_record_is_gone_when_its_time_is_over(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (short, whole, kept) = (key("record"), key("record"), key("record"));
    let since = Instant::now();
    let first = create(&broker, &short, "short", Some(Duration::from_millis(10))).await.unwrap();
    create(&broker, &whole, "whole", Some(Duration::from_millis(1_001))).await.unwrap();
    let stays = create(&broker, &kept, "kept", None).await.unwrap();
    let (short_for, whole_for) = tokio::join!(gone(&broker, &short, since), gone(&broker, &whole, since));
    assert!(short_for >= Duration::from_secs(1), "gone after {short_for:?}");
    assert!(whole_for >= Duration::from_secs(2), "gone after {whole_for:?}");
    shows(&broker, &kept, Some(("kept", stays))).await;

    fenced(update(&broker, &short, first, "no", None).await);
    fenced(delete(&broker, &short, first).await);
    assert!(create(&broker, &short, "again", None).await.unwrap() > first);
}

/// An update starts the time to live anew, with the one that it brings.
pub async fn an_update_starts_the_time_anew(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (renewed, freed) = (key("record"), key("record"));
    let ttl = Some(Duration::from_secs(2));
    let first = create(&broker, &freed, "one", ttl).await.unwrap();
    let stays = update(&broker, &freed, first, "two", None).await.unwrap();
    let first = create(&broker, &renewed, "one", ttl).await.unwrap();
    let_pass(Duration::from_millis(700)).await;
    let since = Instant::now();
    update(&broker, &renewed, first, "two", ttl).await.unwrap();
    let lived = gone(&broker, &renewed, since).await;
    assert!(lived >= Duration::from_secs(2), "gone after {lived:?}");
    shows(&broker, &freed, Some(("two", stays))).await;
}

/// What a watch of `key` says once `change` was made, having said nothing before.
async fn watched<T>(
    broker: &Arc<dyn Broker>,
    key: &Key,
    seen: Option<Revision>,
    change: impl Future<Output = Result<T>>,
) -> Option<Entry> {
    let mut watch = broker.watch_key(key.clone(), seen);
    let early = tokio::time::timeout(A_WHILE, &mut watch).await;
    assert!(early.is_err(), "nothing has changed, yet the watch said {early:?}");
    assert!(change.await.is_ok());
    within("the watch", watch).await.unwrap()
}

/// A watch answers once the record is no longer as it was seen: when it is created, replaced, removed.
pub async fn a_watch_answers_when_the_record_changes(rig: &dyn Rig) {
    let (broker, writer) = (rig.open().await, rig.open().await);
    let key = key("record");
    let created = watched(&broker, &key, None, create(&writer, &key, "one", None)).await.expect("it was created");
    assert_eq!(created.bytes, "one");
    let at = created.revision;
    let updated = watched(&broker, &key, Some(at), update(&writer, &key, at, "two", None)).await.expect("it was replaced");
    assert!(updated.bytes == "two" && updated.revision > at);
    let at = updated.revision;
    assert_eq!(watched(&broker, &key, Some(at), delete(&writer, &key, at)).await, None);
}

/// A watch answers at once if the record is already another than the one seen, and when its time is over.
pub async fn a_watch_answers_at_once_or_when_time_is_over(rig: &dyn Rig) {
    let broker = rig.open().await;
    let key = key("record");
    let watch = async |seen| within("the watch", broker.watch_key(key.clone(), seen)).await.unwrap();
    assert_eq!(watch(Some(Revision(7))).await, None);
    let first = create(&broker, &key, "one", None).await.unwrap();
    let second = update(&broker, &key, first, "two", Some(Duration::from_secs(1))).await.unwrap();
    let standing = Some(Entry { bytes: "two".into(), revision: second });
    assert_eq!(watch(None).await, standing);
    assert_eq!(watch(Some(first)).await, standing);
    assert_eq!(watch(Some(second)).await, None);
}

/// Records are durable; what was removed stays removed; revisions go on and times to live run out after a restart.
pub async fn records_stand_after_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (kept, removed, short) = (key("record"), key("record"), key("record"));
    let first = create(&broker, &kept, "one", None).await.unwrap();
    let second = update(&broker, &kept, first, "two", None).await.unwrap();
    let gone_at = create(&broker, &removed, "gone", None).await.unwrap();
    delete(&broker, &removed, gone_at).await.unwrap();
    create(&broker, &short, "short", Some(Duration::from_secs(2))).await.unwrap();
    drop(broker);
    rig.restart(Duration::ZERO).await;

    let broker = rig.open().await;
    shows(&broker, &kept, Some(("two", second))).await;
    fenced(update(&broker, &kept, first, "no", None).await);
    assert!(update(&broker, &kept, second, "three", None).await.unwrap() > second);
    shows(&broker, &removed, None).await;
    assert!(create(&broker, &removed, "again", None).await.unwrap() > gone_at, "a revision was used twice");
    gone(&broker, &short, Instant::now()).await;
}
