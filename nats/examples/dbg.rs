#![allow(clippy::all, missing_docs)]
use std::time::Duration;
use std::sync::Arc;
use wf_broker::*;
use wf_schema::*;
use wf_nats::{*, testing::*};
#[tokio::main]
async fn main() {
    let mut server = TestServer::start(ServerOptions::new().sync_always(true));
    let options = NatsOptions::new([server.url()]).unwrap();
    let mut s = FactorySettings::default(); s.lease = Duration::from_secs(1);
    setup(&options, &s, OnDifference::Refuse).await.unwrap();
    let broker: Arc<dyn Broker> = NatsBroker::connect(options).await.unwrap();
    let lane: Lane = "q.normal".parse().unwrap();
    for i in 0..100 { broker.publish(Message{lane: lane.clone(), id: format!("m{i}").into(), bytes: format!("{i}").into()}).await.unwrap(); }
    let mut src = broker.lane(lane.clone()).await.unwrap();
    src.grant(100, 1<<20);
    let mut taken = vec![];
    while taken.len() < 100 { taken.push(src.next().await.unwrap()); }
    let mut runs: Vec<_> = taken.iter().map(|d| d.run.sequence()).collect(); runs.sort(); runs.dedup();
    println!("distinct {} {:?}", runs.len(), taken.iter().filter(|d| d.delivered>1).count());
    let h = std::thread::spawn(move || { server.kill(); std::thread::sleep(Duration::from_secs(1)); server.restart(); server });
    for d in &taken { d.lease.ack(); tokio::time::sleep(Duration::from_millis(5)).await; }
    let server = h.join().unwrap();
    println!("settled {:?}", broker.settled().await);
    println!("stats {:?}", broker.stats(lane.clone()).await);
    let mut src2 = broker.lane(lane.clone()).await.unwrap();
    src2.grant(1000, 1<<20);
    while let Ok(d) = tokio::time::timeout(Duration::from_secs(3), src2.next()).await { let d = d.unwrap(); println!("again {d:?}"); d.lease.ack(); }
    println!("{}", server.log());
}
