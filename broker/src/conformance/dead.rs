//! Dead letters: kept, listed a page at a time, removed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use wf_schema::{BatchId, Queue, now};

use super::Rig;
use super::names::{lane, message, noise, queue, texts};
use super::patience::{until, within};
use crate::{Broker, BrokerError, Buried};

/// The size of the letters that fill the store: the least that it may hold takes a few dozen of them.
const LARGE: usize = 32 << 10;
/// The most that a rig's store of dead letters may hold, so that it can be filled.
const MOST_DEAD: u64 = 4 << 20;

async fn bury(broker: &Arc<dyn Broker>, queue: &Queue, id: &str, bytes: impl Into<Bytes>) {
    within("it is buried", broker.bury(queue.clone(), id.into(), bytes.into())).await.unwrap();
}

fn id() -> String {
    BatchId::new().to_string()
}

/// All dead letters of `queue` (or of all queues), in pages of `limit`.
async fn pages(broker: &Arc<dyn Broker>, queue: Option<&Queue>, limit: usize) -> Vec<Vec<Buried>> {
    let (mut pages, mut from) = (Vec::new(), 0);
    loop {
        let page = within("a page", broker.dead(queue.cloned(), from, limit)).await.unwrap();
        assert!(page.letters.len() <= limit, "a page of {} with a limit of {limit}", page.letters.len());
        assert!(page.letters.iter().all(|letter| letter.position >= from), "a page that begins before it should");
        pages.push(page.letters);
        match page.next {
            Some(next) => assert!(next > from, "the next page begins where this one does"),
            None => return pages,
        }
        from = page.next.unwrap();
    }
}

/// The dead letters of `queue`, once there are `count`: reading may lag behind.
pub(super) async fn letters(broker: &Arc<dyn Broker>, queue: &Queue, count: usize) -> Vec<Buried> {
    let read = async || Some(pages(broker, Some(queue), 100).await.concat()).filter(|letters| letters.len() >= count);
    let letters = until("the dead letters can be read", read).await;
    assert_eq!(letters.len(), count, "more dead letters than were buried");
    letters
}

/// A dead letter says what was buried, of which queue and when, in the list and by its position.
pub async fn a_dead_letter_is_kept_as_it_was(rig: &dyn Rig) {
    let (broker, other) = (rig.open().await, rig.open().await);
    let queue = queue();
    let before = now();
    let bytes = [Bytes::from_static(b"\0\xff\r\n"), noise(100_000)];
    for bytes in &bytes {
        bury(&broker, &queue, &id(), bytes.clone()).await;
    }
    let letters = letters(&other, &queue, 2).await;
    assert!(letters[0].position < letters[1].position);
    for (letter, bytes) in letters.iter().zip(&bytes) {
        assert!(letter.queue == queue && letter.bytes == *bytes, "it is not what was buried");
        assert!((before - 60_000..=now() + 60_000).contains(&letter.at), "buried at {}", letter.at);
        let alone = within("the letter", other.dead_at(letter.position)).await.unwrap().expect("it is listed");
        assert!((alone.position, alone.at) == (letter.position, letter.at) && alone.queue == queue && alone.bytes == *bytes);
    }
}

/// One whose id was buried before is not kept twice.
pub async fn an_id_buried_before_is_not_kept_twice(rig: &dyn Rig) {
    let (broker, other) = (rig.open().await, rig.open().await);
    let queue = queue();
    let (once, twice) = (id(), id());
    bury(&broker, &queue, &twice, "first").await;
    bury(&other, &queue, &twice, "again").await;
    bury(&broker, &queue, &once, "second").await;
    let letters = letters(&broker, &queue, 2).await;
    assert!(letters.iter().map(|letter| &letter.bytes[..]).eq([&b"first"[..], b"second"]));
}

/// Dead letters are listed in pages, in the order of their positions, each once; of one queue or of all.
pub async fn dead_letters_come_in_pages(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (one, other) = (queue(), queue());
    let texts = texts(25);
    for text in &texts {
        let both = [&one, &other].map(|queue| broker.bury(queue.clone(), id().into(), text.clone()));
        within("they are buried", try_join_all(both)).await.unwrap();
    }
    letters(&broker, &one, 25).await;
    letters(&broker, &other, 25).await;

    let of_one = pages(&broker, Some(&one), 10).await;
    assert_eq!(of_one.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5]);
    let of_one = of_one.concat();
    assert!(of_one.is_sorted_by(|a, b| a.position < b.position));
    assert!(of_one.iter().all(|letter| letter.queue == one));
    assert!(of_one.iter().map(|letter| &letter.bytes).eq(&texts), "positions grow with time");

    // Other cases may bury theirs meanwhile.
    let of_all = pages(&broker, None, 7).await.concat();
    assert!(of_all.is_sorted_by(|a, b| a.position < b.position));
    for queue in [one, other] {
        assert!(of_all.iter().filter(|letter| letter.queue == queue).map(|letter| &letter.bytes).eq(&texts));
    }

    let middle = of_one[12].position;
    let page = within("a page", broker.dead(Some(of_one[0].queue.clone()), middle, 3)).await.unwrap();
    let positions: Vec<_> = page.letters.iter().map(|letter| letter.position).collect();
    assert_eq!(positions, [of_one[12].position, of_one[13].position, of_one[14].position], "from is not included");
}

/// Where nothing was buried, the one page is empty.
pub async fn a_queue_without_dead_letters_has_an_empty_page(rig: &dyn Rig) {
    let broker = rig.open().await;
    for from in [0, 1, u64::from(u32::MAX)] {
        let page = within("a page", broker.dead(Some(queue()), from, 10)).await.unwrap();
        assert!(page.letters.is_empty() && page.next.is_none(), "{page:?}");
    }
}

/// A dead letter that is removed is gone, and no other with it; of removing it, one is told.
pub async fn a_dead_letter_is_removed_once(rig: &dyn Rig) {
    let broker = rig.open().await;
    let queue = queue();
    for text in texts(3) {
        bury(&broker, &queue, &id(), text).await;
    }
    let three = letters(&broker, &queue, 3).await;
    let removed = three[1].position;
    assert!(within("an answer", broker.delete_dead(removed)).await.unwrap());
    assert!(!within("an answer", broker.delete_dead(removed)).await.unwrap(), "it was removed twice");
    assert!(!within("an answer", broker.delete_dead(u64::from(u32::MAX))).await.unwrap(), "there was none to remove");

    let gone = async || broker.dead_at(removed).await.unwrap().is_none().then_some(());
    until("it is gone", gone).await;
    let left = letters(&broker, &queue, 2).await;
    assert!(left.iter().map(|letter| letter.position).eq([three[0].position, three[2].position]));
    assert!(within("an answer", broker.dead_at(u64::from(u32::MAX))).await.unwrap().is_none());
}

/// One that is too large is refused as a publish would be.
pub async fn a_dead_letter_too_large_is_refused(rig: &dyn Rig) {
    let broker = rig.open().await;
    let large = broker.bury(queue(), id().into(), noise(broker.max_message() + 1));
    let answer = within("an answer", large).await;
    assert!(matches!(answer, Err(BrokerError::TooLarge { .. })), "{answer:?}");
}

/// Dead letters are durable, at their positions; those removed stay so.
pub async fn dead_letters_stand_after_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let queue = queue();
    for text in texts(4) {
        bury(&broker, &queue, &id(), text).await;
    }
    let before = letters(&broker, &queue, 4).await;
    assert!(within("an answer", broker.delete_dead(before[3].position)).await.unwrap());
    drop(broker);
    rig.restart(Duration::ZERO).await;

    let broker = rig.open().await;
    let told = |letters: &[Buried]| letters.iter().map(|l| (l.position, l.at, l.bytes.clone())).collect::<Vec<_>>();
    assert_eq!(told(&letters(&broker, &queue, 3).await), told(&before[..3]));
    bury(&broker, &queue, &id(), "after").await;
    let after = letters(&broker, &queue, 4).await;
    assert!(after[3].position > before[3].position, "a position was used twice");
}

/// When the store of dead letters is full, the oldest make room, of whatever queue: burying goes on, what is counted says
/// so, and lanes do not notice.
pub async fn the_oldest_make_room_when_the_store_is_full(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (first, rest) = (queue(), queue());
    bury(&broker, &first, &id(), noise(LARGE)).await;
    let before = within("the count", broker.dead_stats()).await.unwrap();
    assert!(before.letters >= 1 && before.bytes >= LARGE as u64 && before.oldest.is_some(), "{before:?}");
    assert!(before.most_bytes <= MOST_DEAD, "the rig keeps too many dead letters for this case: {before:?}");

    let twice = (2 * before.most_bytes) as usize / LARGE;
    let mut last = String::new();
    for n in 0..twice {
        last = format!("{n:04}");
        let mut bytes = last.clone().into_bytes();
        bytes.extend(noise(LARGE));
        bury(&broker, &rest, &id(), bytes).await;
    }
    let gone = async || pages(&broker, Some(&first), 10).await.concat().is_empty().then_some(());
    until("the oldest letter has made room", gone).await;
    let kept = pages(&broker, Some(&rest), 100).await.concat();
    assert!(kept.last().is_some_and(|letter| letter.bytes.starts_with(last.as_bytes())), "the newest letter is not kept");
    assert!(kept.len() * 3 >= twice, "{} of {twice} letters are kept: more were dropped than had to be", kept.len());
    assert!(kept.len() < twice, "nothing was dropped");

    let counted = async || {
        let stats = broker.dead_stats().await.unwrap();
        (stats.bytes <= stats.most_bytes && stats.dropped > before.dropped).then_some(stats)
    };
    let stats = until("what was dropped is counted", counted).await;
    let oldest = stats.oldest.expect("there are letters");
    assert!(oldest.abs_diff(kept[0].at) <= 60_000, "the oldest is of {oldest}, not of {}", kept[0].at);

    // Nobody else is held up.
    let lane = lane();
    within("it is stored", broker.publish(message(&lane, "after"))).await.unwrap();
    let mut source = within("the lane opens", broker.lane(lane)).await.unwrap();
    source.grant(1, 1_024);
    let delivery = within("it is delivered", source.next()).await.unwrap();
    delivery.lease.ack(None);
}

/// A full store stays one over a restart: burying goes on.
pub async fn a_full_store_makes_room_after_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let queue = queue();
    let most = within("the count", broker.dead_stats()).await.unwrap().most_bytes;
    assert!(most <= MOST_DEAD, "the rig keeps too many dead letters for this case");
    for _ in 0..most as usize / LARGE + 2 {
        bury(&broker, &queue, &id(), noise(LARGE)).await;
    }
    drop(broker);
    rig.restart(Duration::ZERO).await;
    let broker = rig.open().await;
    for text in texts(3) {
        let mut bytes = text.to_vec();
        bytes.extend(noise(LARGE));
        bury(&broker, &queue, &id(), bytes).await;
    }
    let last = async || {
        let kept = pages(&broker, Some(&queue), 100).await.concat();
        kept.last().is_some_and(|letter| letter.bytes.starts_with(b"0002")).then_some(())
    };
    until("the newest letter can be read", last).await;
}

/// A letter that is larger than the whole store is refused as too large, and displaces nothing.
pub async fn a_dead_letter_larger_than_the_store_is_refused(rig: &dyn Rig) {
    let broker = rig.open().await;
    let queue = queue();
    bury(&broker, &queue, &id(), "kept").await;
    let most = within("the count", broker.dead_stats()).await.unwrap().most_bytes;
    let large = broker.bury(queue.clone(), id().into(), noise(most as usize));
    let answer = within("an answer", large).await;
    assert!(matches!(answer, Err(BrokerError::TooLarge { .. })), "{answer:?}");
    letters(&broker, &queue, 1).await;
}
