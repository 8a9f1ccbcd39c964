//! Publishing: durable, pipelined, deduplicated, bounded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use wf_schema::{Lane, Millis, Priority, now};

use super::Rig;
use super::names::{lane, message, messages, noise, texts};
use super::patience::{A_WHILE, within};
use super::taker::{Taker, contents};
use crate::{Broker, BrokerError, Message, Stored};

/// The clocks of a broker and its caller may differ by this much, in milliseconds.
const CLOCKS: Millis = 60_000;

/// Publishes all of `messages` at once and wants them all stored, and none to be a duplicate.
pub(super) async fn publish_each(broker: &Arc<dyn Broker>, messages: Vec<Message>) {
    let all = try_join_all(messages.into_iter().map(|message| broker.publish(message)));
    let stored = within("everything is stored", all).await.unwrap();
    assert!(stored.iter().all(|stored| !stored.duplicate), "a fresh id was called a duplicate");
}

/// Fills `lane` to the brim.
pub(super) async fn fill(rig: &dyn Rig, broker: &Arc<dyn Broker>, lane: &Lane) {
    let fill = rig.fill();
    let messages = (0..fill.messages).map(|_| message(lane, noise(fill.bytes))).collect();
    publish_each(broker, messages).await;
}

/// Publishes one message more than `lane` takes and wants it refused.
async fn refused(broker: &Arc<dyn Broker>, message: Message) {
    let wanted = message.lane.clone();
    match within("an answer from a full lane", broker.publish(message)).await {
        Err(error @ BrokerError::Full { .. }) => {
            assert!(error.is_retryable());
            let BrokerError::Full { lane, retry_after } = error else { unreachable!() };
            assert_eq!(lane, wanted, "another lane was called full");
            assert!(retry_after > Duration::ZERO, "when to try again was not said");
        }
        other => panic!("a full lane answered {other:?}"),
    }
}

/// A delivery says what was published, in the lane it was published to, at the time it was.
pub async fn a_message_comes_as_it_was_published(rig: &dyn Rig) {
    let broker = rig.open().await;
    for priority in Priority::ALL {
        let lane = Lane { priority, ..lane() };
        let before = now();
        // Around the sizes where stores change their ways, and with bytes that no text has.
        let mut published: Vec<Bytes> = [1, 511, 512, 513, 70_000].map(noise).into();
        published.push(Bytes::from_static(b"\0\r\n\xff"));
        publish_each(&broker, published.iter().map(|bytes| message(&lane, bytes.clone())).collect()).await;

        let mut taker = Taker::open(&broker, &lane).await;
        let taken = taker.take_many(published.len()).await;
        published.sort();
        assert!(contents(&taken) == published, "what came is not what was published");
        for delivery in taken {
            assert_eq!((&delivery.lane, delivery.delivered, &delivery.fired), (&lane, 1, &None));
            assert!((before - CLOCKS..=now() + CLOCKS).contains(&delivery.stored_at), "stored at {}", delivery.stored_at);
            delivery.lease.ack(None);
        }
    }
}

/// A message whose id was stored before is told as a duplicate and not stored again, whether the first still waits,
/// is with an owner or was acknowledged.
pub async fn an_id_stored_before_is_not_stored_again(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let first = message(&lane, "first");
    let again = Message { bytes: "again".into(), ..first.clone() };
    let told = Stored { duplicate: true };

    publish_each(&broker, vec![first]).await;
    assert_eq!(broker.publish(again.clone()).await.unwrap(), told, "while it waits");
    let mut taker = Taker::open(&broker, &lane).await;
    let delivery = taker.take().await;
    assert_eq!(delivery.bytes, "first");
    assert_eq!(broker.publish(again.clone()).await.unwrap(), told, "while it is with an owner");
    delivery.lease.ack(None);
    within("settled", broker.settled()).await.unwrap();
    assert_eq!(broker.publish(again).await.unwrap(), told, "after it was acknowledged");
    taker.nothing(A_WHILE).await;
}

/// An id is 1 to 200 visible ASCII characters, all of which count.
pub async fn ids_may_be_long_and_odd(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let unique = wf_schema::BatchId::new().to_string();
    let odd: String = (b'!'..=b'~').map(char::from).collect();
    let long = |last: &str| format!("{unique}{odd}{}{last}", "x".repeat(200 - unique.len() - odd.len() - 1));
    for id in [long("a"), long("b"), unique.clone(), unique.to_lowercase()] {
        let message = Message { id: id.as_str().into(), ..message(&lane, id.clone()) };
        assert_eq!(broker.publish(message.clone()).await.unwrap(), Stored { duplicate: false }, "{id}");
        assert_eq!(broker.publish(message).await.unwrap(), Stored { duplicate: true }, "{id}");
    }
}

/// Many publishes may be under way at once, on one lane or several.
pub async fn many_publishes_may_be_under_way(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (one, other) = (lane(), lane());
    let mut all = messages(&one, 500);
    all.extend(messages(&other, 100));
    publish_each(&broker, all).await;
    for (lane, count) in [(one, 500), (other, 100)] {
        let mut taker = Taker::open(&broker, &lane).await;
        let came = taker.ack_until_all(&texts(count)).await;
        assert!(came.values().all(|&times| times == 1), "some came more than once");
    }
}

/// Of many publishes of one id at once, one is stored.
pub async fn of_one_id_at_once_one_is_stored(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let same = message(&lane, "same");
    let answers = within("answers", join_all((0..20).map(|_| broker.publish(same.clone())))).await;
    let stored = answers.into_iter().filter(|answer| !answer.as_ref().unwrap().duplicate).count();
    assert_eq!(stored, 1, "stored more or less than once");
    let mut taker = Taker::open(&broker, &lane).await;
    taker.take().await.lease.ack(None);
    taker.nothing(A_WHILE).await;
}

/// A message of `max_message` comes as it was published, and a larger one is refused with both sizes.
pub async fn a_message_too_large_is_refused(rig: &dyn Rig) {
    let broker = rig.open().await;
    let limit = broker.max_message();
    let lane = lane();
    let largest = noise(limit);
    publish_each(&broker, vec![message(&lane, largest.clone())]).await;
    let delivery = Taker::open(&broker, &lane).await.take().await;
    assert!(delivery.bytes == largest);
    delivery.lease.ack(None);
    match within("an answer", broker.publish(message(&lane, noise(limit + 1)))).await {
        Err(error @ BrokerError::TooLarge { .. }) => {
            assert!(!error.is_retryable());
            assert!(matches!(error, BrokerError::TooLarge { size, limit: told } if size == limit + 1 && told == limit));
        }
        other => panic!("a message too large was answered with {other:?}"),
    }
    publish_each(&broker, messages(&lane, 1)).await;
}

/// A full lane refuses, stores nothing of what it refused, and takes more once something was acknowledged.
pub async fn a_full_lane_refuses_until_there_is_room(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    fill(rig, &broker, &lane).await;
    let late = message(&lane, "late");
    refused(&broker, late.clone()).await;

    let mut taker = Taker::open(&broker, &lane).await;
    for delivery in taker.take_many(rig.fill().messages).await {
        assert_ne!(delivery.bytes, "late", "what was refused was stored");
        delivery.lease.ack(None);
    }
    within("settled", broker.settled()).await.unwrap();
    // The refusal must not have used up the id.
    publish_each(&broker, vec![late]).await;
    assert_eq!(taker.take().await.bytes, "late");
}

/// A message that is stored is a duplicate also when its lane is full: whoever repeats a publish learns from a refusal
/// that it was not stored before, and may send it another way.
pub async fn a_full_lane_knows_what_it_has(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let first = message(&lane, noise(rig.fill().bytes));
    publish_each(&broker, vec![first.clone()]).await;
    let more = (1..rig.fill().messages).map(|_| message(&lane, noise(rig.fill().bytes))).collect();
    publish_each(&broker, more).await;
    refused(&broker, message(&lane, "late")).await;
    assert!(within("an answer", broker.publish(first)).await.unwrap().duplicate);
}

/// A full lane blocks no other: not of its queue, not of another, not together with others on their way.
pub async fn a_full_lane_blocks_no_other(rig: &dyn Rig) {
    let broker = rig.open().await;
    let full = lane();
    fill(rig, &broker, &full).await;
    let urgent = Lane { priority: Priority::High, ..full.clone() };
    let other = lane();

    let mixed = (0..60).flat_map(|_| [message(&full, "no"), message(&urgent, "yes"), message(&other, "yes")]);
    let answers = within("answers", join_all(mixed.map(|message| broker.publish(message)))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        match (n % 3, answer) {
            (0, Err(BrokerError::Full { lane, .. })) => assert_eq!(lane, full),
            (1 | 2, Ok(Stored { duplicate: false })) => {}
            (n, answer) => panic!("lane {n} of three answered {answer:?}"),
        }
    }
    for lane in [urgent, other] {
        for delivery in Taker::open(&broker, &lane).await.take_many(60).await {
            delivery.lease.ack(None);
        }
    }
}

/// What is published together is stored in all its lanes, up to the most that may be published together.
pub async fn together_all_are_stored(rig: &dyn Rig) {
    let broker = rig.open().await;
    within("nothing is stored", broker.publish_all(Vec::new())).await.unwrap();

    let most = broker.max_together();
    let each = most.div_ceil(most.div_ceil(rig.fill().messages / 2));
    let lanes: Vec<Lane> = (0..most.div_ceil(each)).map(|_| lane()).collect();
    let mut together: Vec<Message> = lanes.iter().flat_map(|lane| messages(lane, each)).collect();
    together.truncate(most);
    within("all are stored", broker.publish_all(together.clone())).await.unwrap();
    for lane in lanes {
        let wanted: Vec<Bytes> = together.iter().filter(|m| m.lane == lane).map(|m| m.bytes.clone()).collect();
        let came = Taker::open(&broker, &lane).await.ack_until_all(&wanted).await;
        assert!(came.values().all(|&times| times == 1), "some came more than once");
    }
}

/// That all or some were stored before is success, and none of them is stored twice.
pub async fn together_again_is_success(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (one, other) = (lane(), lane());
    let together = vec![message(&one, "a"), message(&other, "b"), message(&one, "c")];
    publish_each(&broker, vec![together[1].clone()]).await;
    within("the rest is stored", broker.publish_all(together.clone())).await.unwrap();
    within("stored before", broker.publish_all(together.clone())).await.unwrap();

    let mut taker = Taker::open(&broker, &one).await;
    let taken = taker.take_many(2).await;
    assert_eq!(contents(&taken), ["a", "c"]);
    taken.iter().for_each(|delivery| delivery.lease.ack(None));
    let mut other_taker = Taker::open(&broker, &other).await;
    let delivery = other_taker.take().await;
    assert_eq!(delivery.bytes, "b");
    delivery.lease.ack(None);

    within("settled", broker.settled()).await.unwrap();
    within("acknowledged before", broker.publish_all(together)).await.unwrap();
    tokio::join!(taker.nothing(A_WHILE), other_taker.nothing(A_WHILE));
}

/// More messages than may be published together are refused, and none of them is stored.
pub async fn together_too_many_are_refused(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let answer = within("an answer", broker.publish_all(messages(&lane, broker.max_together() + 1))).await;
    assert!(matches!(answer, Err(BrokerError::Fatal { .. })), "{answer:?}");
    Taker::open(&broker, &lane).await.nothing(A_WHILE).await;
}

/// One message that is refused keeps all from being stored, and their ids from being remembered.
pub async fn together_none_is_stored_if_one_is_refused(rig: &dyn Rig) {
    let broker = rig.open().await;
    let (full, other) = (lane(), lane());
    fill(rig, &broker, &full).await;
    let good = message(&other, "good");

    let with_full = vec![good.clone(), message(&full, "one too many")];
    let answer = within("an answer", broker.publish_all(with_full)).await;
    assert!(matches!(&answer, Err(BrokerError::Full { lane, .. }) if *lane == full), "{answer:?}");
    let with_large = vec![good.clone(), message(&other, noise(broker.max_message() + 1))];
    let answer = within("an answer", broker.publish_all(with_large)).await;
    assert!(matches!(answer, Err(BrokerError::TooLarge { .. })), "{answer:?}");

    let mut taker = Taker::open(&broker, &other).await;
    taker.nothing(A_WHILE).await;
    publish_each(&broker, vec![good]).await;
    assert_eq!(taker.take().await.bytes, "good");
}

/// What was answered is durable: single publishes and those together.
pub async fn what_was_published_is_there_after_a_restart(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let all = messages(&lane, 300);
    publish_each(&broker, all[..200].to_vec()).await;
    within("all are stored", broker.publish_all(all[200..].to_vec())).await.unwrap();
    drop(broker);
    rig.restart(Duration::ZERO).await;

    let broker = rig.open().await;
    Taker::open(&broker, &lane).await.ack_until_all(&texts(300)).await;
}

/// A broker that dies among publishes has what it answered.
pub async fn what_was_answered_before_a_crash_is_there(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let publishing: Vec<_> = messages(&lane, 500)
        .into_iter()
        .map(|message| {
            let (broker, answered) = (broker.clone(), answered.clone());
            tokio::spawn(async move {
                let bytes = message.bytes.clone();
                // It may well fail: the broker dies. What it answers before is what counts.
                if broker.publish(message).await.is_ok() {
                    answered.send(bytes).ok();
                }
            })
        })
        .collect();
    let mut durable = vec![within("a first answer", answers.recv()).await.unwrap()];
    publishing.iter().for_each(|task| task.abort());
    join_all(publishing).await;
    drop((broker, answered));
    rig.restart(Duration::ZERO).await;
    while let Some(bytes) = answers.recv().await {
        durable.push(bytes);
    }

    let broker = rig.open().await;
    Taker::open(&broker, &lane).await.ack_until_all(&durable).await;
}

/// An id published again after a restart is there at least once. Whether it is called a duplicate is the broker's
/// own affair: ids may be forgotten at a restart.
pub async fn an_id_published_again_after_a_restart_is_not_lost(rig: &dyn Rig) {
    let broker = rig.open().await;
    let lane = lane();
    let waiting = message(&lane, "waiting");
    let together = vec![message(&lane, "one"), message(&lane, "two")];
    publish_each(&broker, vec![waiting.clone()]).await;
    within("all are stored", broker.publish_all(together.clone())).await.unwrap();
    drop(broker);
    rig.restart(Duration::ZERO).await;

    let broker = rig.open().await;
    within("stored", broker.publish(waiting)).await.unwrap();
    within("stored", broker.publish_all(together)).await.unwrap();
    let wanted = ["waiting", "one", "two"].map(Bytes::from);
    Taker::open(&broker, &lane).await.ack_until_all(&wanted).await;
}
