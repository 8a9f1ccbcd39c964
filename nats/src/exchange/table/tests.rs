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

    // One that nobody ever confirms is given up.
    table.add(Pending::new(Vec::new(), part("ack"), NobodyThere::AskAgain, Answer::Settle)).unwrap();
    for _ in 0..=MAX_REPETITIONS + 1 {
        sent(&mut table);
        table.send_due(Instant::now() + Duration::from_secs(1));
    }
    assert_eq!(table.unsettled(), 0);
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
