use tokio::sync::mpsc;
use wf_broker::{Embedded, EmbeddedOptions};
use wf_schema::config::Loader;

use super::*;

/// A broker that is looked for, with what comes of each look.
struct Yard {
    spool: tempfile::TempDir,
    config: Config,
}

type Looks = mpsc::UnboundedSender<Outcome>;

impl Yard {
    fn new() -> Self {
        let loader = Loader::new().flags([("ingest.unreachable_after", "100ms"), ("broker.connect_deadline", "1min")]);
        Self { spool: tempfile::tempdir().unwrap(), config: loader.load().unwrap().config }
    }

    /// Looks for it, and finds what is sent.
    async fn soon(&self, sent: impl FnOnce(&Looks)) -> (Looks, Result<(Arc<dyn Broker>, Refusal), BrokerUnavailable>) {
        let (looks, outcomes) = mpsc::unbounded_channel();
        sent(&looks);
        let outcomes = Arc::new(tokio::sync::Mutex::new(outcomes));
        let connect = move || -> Finding {
            let outcomes = outcomes.clone();
            Box::pin(async move { outcomes.lock().await.recv().await.unwrap() })
        };
        (looks, soon(&self.config, self.spool.path(), Box::new(connect)).await)
    }
}

fn there() -> Outcome {
    Ok(Embedded::memory(EmbeddedOptions::default()).unwrap())
}

fn refused() -> Outcome {
    Err(BrokerError::denied("log in", "wrong password").into())
}

/// What is said when it is asked, causes and all, and whether asking again makes sense.
async fn said(broker: &dyn Broker) -> (String, bool) {
    let error = broker.ping().await.unwrap_err();
    let mut said = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        said = format!("{said}: {error}");
        source = error.source();
    }
    (said, error.is_retryable())
}

#[tokio::test]
async fn one_that_comes_late_answers_from_then_on() {
    let yard = Yard::new();
    let (looks, soon) = yard.soon(|_| ()).await;
    let (broker, _) = soon.unwrap();
    assert_eq!(said(&*broker).await, ("the broker did not answer a ping: it was not reached yet".to_owned(), true));
    assert_eq!((broker.max_message(), broker.lease()), (128 << 10, Duration::from_secs(1)), "what is always safe");
    broker.settled().await.unwrap();
    looks.send(Err(BrokerError::retryable("listen", "connection refused").into())).ok();
    looks.send(there()).ok();
    while broker.ping().await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let found = (broker.max_message(), broker.lease());
    assert_eq!(found, (1 << 20, Duration::from_secs(30)));
    broker.close().await.unwrap();
    assert!(!said(&*broker).await.1, "it is closed");
    // The next time this is known before.
    let (_looks, soon) = yard.soon(|_| ()).await;
    let (broker, _) = soon.unwrap();
    assert_eq!((broker.max_message(), broker.lease()), found);
}

#[tokio::test]
async fn one_that_is_there_is_taken_as_it_is() {
    let yard = Yard::new();
    let (_looks, soon) = yard.soon(|looks| looks.send(there()).unwrap()).await;
    soon.unwrap().0.ping().await.unwrap();
    assert_eq!(Facts::read(yard.spool.path()).await.max_message, 1 << 20);
}

#[tokio::test]
async fn one_that_refuses_is_told_of_to_who_waits() {
    let yard = Yard::new();
    let (_looks, soon) = yard.soon(|looks| looks.send(refused()).unwrap()).await;
    assert!(matches!(soon, Err(BrokerUnavailable::Broker(BrokerError::Denied { .. }))));
    // Also when it does so only after the time in which it is waited for.
    let (looks, soon) = yard.soon(|_| ()).await;
    let (_broker, refusal) = soon.unwrap();
    looks.send(refused()).ok();
    assert!(matches!(refusal.came().await, BrokerUnavailable::Broker(BrokerError::Denied { .. })));
}

#[tokio::test]
async fn one_that_refuses_while_nobody_waits_is_asked_again_and_says_why() {
    let yard = Yard::new();
    let (looks, soon) = yard.soon(|_| ()).await;
    let (broker, refusal) = soon.unwrap();
    drop(refusal);
    looks.send(refused()).ok();
    let why = loop {
        match said(&*broker).await {
            (why, true) if why.contains("not reached yet") => tokio::task::yield_now().await,
            told => break told,
        }
    };
    assert!(why.0.ends_with("the broker does not allow to log in: wrong password") && why.1, "{why:?}");
    broker.close().await.unwrap();
    assert!(!said(&*broker).await.1);
}
