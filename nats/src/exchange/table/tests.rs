#![allow(clippy::unwrap_used)]

use super::*;

fn part(subject: &str) -> Part {
    Part { subject: subject.into(), headers: None, payload: "x".into() }
}

fn answer(status: Option<StatusCode>) -> Message {
    let subject = "_INBOX.0".into();
    Message { subject, reply: None, payload: "".into(), headers: None, status, description: None, length: 0 }
}

fn ask(table: &mut Table, subject: &str, nobody: NobodyThere) -> (u64, oneshot::Receiver<Result<Answered, Unanswered>>) {
    let (waiting, answered) = oneshot::channel();
    (table.add(Pending::new(Vec::new(), part(subject), nobody, Answer::One(waiting))).unwrap(), answered)
}

fn sent(table: &mut Table) -> Vec<u64> {
    std::iter::from_fn(|| table.next(Instant::now())).map(|next| next.id).collect()
}

#[test]
fn what_is_unanswered_is_sent_again_once_and_in_order_in_the_next_generation() {
    let mut table = Table::new(Duration::from_secs(60));
    table.at_generation(1);
    let (first, mut first_answer) = ask(&mut table, "a", NobodyThere::AskAgain);
    let (second, mut second_answer) = ask(&mut table, "b", NobodyThere::AskAgain);
    assert_eq!(sent(&mut table), [first, second]);
    let (third, _third_answer) = ask(&mut table, "c", NobodyThere::AskAgain);
    table.answered(first, answer(None));
    assert!(!first_answer.try_recv().unwrap().unwrap().resent);

    table.at_generation(1);
    assert_eq!(sent(&mut table), [third]);
    table.at_generation(2);
    assert_eq!(sent(&mut table), [second, third]);
    assert!(sent(&mut table).is_empty());
    table.answered(second, answer(None));
    assert!(second_answer.try_recv().unwrap().unwrap().resent);
}

#[test]
fn a_settlement_is_sent_until_it_is_confirmed() {
    let mut table = Table::new(Duration::ZERO);
    table.at_generation(1);
    let id = table.add(Pending::new(Vec::new(), part("ack"), NobodyThere::AskAgain, Answer::Settle)).unwrap();
    let mark = table.mark();
    assert_eq!(sent(&mut table), [id]);
    assert!(table.has_timed() && !table.settled_before(mark));
    table.send_due(Instant::now() + Duration::from_secs(1));
    assert_eq!(sent(&mut table), [id]);
    assert!(!table.answered(id, answer(Some(StatusCode::NO_RESPONDERS))), "nobody is no confirmation");
    assert!(table.answered(id, answer(None)));
    assert!(table.settled_before(mark) && table.unsettled() == 0 && !table.has_timed());
}

fn about(sequence: u64, generation: u64) -> About {
    About { origin: Origin { later: false, delivered: 1, sequence, stored_nanos: 5 }, generation }
}

fn settle(table: &mut Table, about: About) -> u64 {
    let settling = Pending::new(Vec::new(), part("ack"), NobodyThere::AskAgain, Answer::Settle);
    table.add(settling.about(about)).unwrap()
}

#[test]
fn a_settlement_is_never_given_up_while_its_message_is_there() {
    let mut table = Table::new(Duration::from_secs(60));
    table.at_generation(1);
    let id = settle(&mut table, about(7, 1));
    let mut now = Instant::now();
    let (mut times, mut looks) = (0, 0);
    // An hour without a consumer leader: nobody is there.
    for _ in 0..3_600 {
        now += Duration::from_secs(1);
        table.send_due(now);
        times += std::iter::from_fn(|| table.next(now)).count();
        for doubt in table.doubts() {
            assert!(doubt.alone && doubt.id == id);
            looks += 1;
            table.is_stored(doubt, 1);
        }
        if times == 2 {
            table.answered(id, answer(Some(StatusCode::NO_RESPONDERS)));
        }
    }
    assert_eq!(table.unsettled(), 1);
    assert!((50..100).contains(&times) && (10..30).contains(&looks), "sent {times} times and looked up {looks} times");
    // Its message turns out to be gone: there is nothing left to settle.
    while table.doubts().is_empty() {
        now += Duration::from_secs(60);
        table.send_due(now);
        std::iter::from_fn(|| table.next(now)).count();
    }
    assert!(table.is_gone(table.doubts()[0], 1));
    assert_eq!((table.unsettled(), table.take_lost()), (0, 0));
}

#[test]
fn what_is_about_earlier_deliveries_is_sent_once_their_messages_were_looked_up() {
    let mut table = Table::new(Duration::from_secs(60));
    table.at_generation(1);
    let old: Vec<u64> = (1..=4).map(|sequence| settle(&mut table, about(sequence, 1))).collect();
    assert_eq!(sent(&mut table), old);
    table.answered(old[0], answer(None));
    table.at_generation(2);
    let new = settle(&mut table, about(9, 2));
    let renewal = Pending::new(Vec::new(), part("renew"), NobodyThere::Fail, Answer::None).about(about(3, 1));
    let renewal = table.add(renewal).unwrap();
    // Also what was confirmed is not sent again as a precaution before it is known to be about the same message.
    assert_eq!(sent(&mut table), [new]);
    let doubts = table.doubts();
    assert_eq!(doubts.len(), 4, "{doubts:?}");
    let of = |sequence| *doubts.iter().find(|doubt| doubt.origin.sequence == sequence).unwrap();
    // What was found in an earlier generation is not true of this one.
    table.is_stored(of(4), 1);
    assert!(sent(&mut table).is_empty());
    // The last is another message now: rolled back. The one before it is the same, and so is what comes before.
    assert!(table.is_gone(of(4), 2));
    table.is_stored(of(3), 2);
    assert_eq!(sent(&mut table), [old[1], old[2], renewal]);
    assert!(table.doubts().is_empty());
    // A later one of the earlier generation is looked up all the same.
    let late = settle(&mut table, about(5, 1));
    assert!(sent(&mut table).is_empty());
    assert_eq!(table.doubts(), [Doubt { id: late, origin: about(5, 1).origin, alone: false }]);
}

#[test]
fn refusals_and_nobody_end_what_they_are_about() {
    let mut table = Table::new(Duration::ZERO);
    table.at_generation(1);
    let (refused, mut refused_answer) = ask(&mut table, "a", NobodyThere::AskAgain);
    let (nobody, mut nobody_answer) = ask(&mut table, "b", NobodyThere::Fail);
    let (other, mut other_answer) = ask(&mut table, "c", NobodyThere::AskAgain);
    assert_eq!(sent(&mut table), [refused, nobody, other]);
    table.refused(&Refusal { subject: "a".into(), said: "no".into() }, false);
    assert!(matches!(refused_answer.try_recv().unwrap(), Err(Unanswered::Denied(said)) if said == "no"));
    table.answered(nobody, answer(Some(StatusCode::NO_RESPONDERS)));
    assert!(matches!(nobody_answer.try_recv().unwrap(), Err(Unanswered::NobodyThere)));
    table.close();
    assert!(matches!(other_answer.try_recv().unwrap(), Err(Unanswered::Closed)));
    assert!(matches!(table.add(Pending::new(Vec::new(), part("d"), NobodyThere::Fail, Answer::None)), Err(Unanswered::Closed)));
}
