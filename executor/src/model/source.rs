//! A lane of the model, as a source of deliveries.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wf_broker::{BoxFuture, Delivery, DeliverySource};
use wf_schema::Lane;

use super::Session;

/// Delivers what is ready, message by message, as far as there is credit and the session is not deaf.
pub(super) struct ModelSource {
    session: Arc<Session>,
    lane: Lane,
    messages: usize,
}

impl ModelSource {
    pub(super) fn new(session: Arc<Session>, lane: Lane) -> Self {
        Self { session, lane, messages: 0 }
    }
}

impl DeliverySource for ModelSource {
    fn grant(&mut self, messages: usize, _: usize) {
        self.messages += messages;
    }

    fn withdraw(&mut self) {
        self.messages = 0;
    }

    fn mend(&mut self) {
        if !self.session.stubborn.load(Ordering::SeqCst) {
            self.session.deaf.store(false, Ordering::SeqCst);
        }
    }

    fn next(&mut self) -> BoxFuture<'_, Delivery> {
        Box::pin(async {
            loop {
                let hears = self.messages > 0 && !self.session.deaf.load(Ordering::SeqCst);
                if let Some(delivery) = hears.then(|| self.session.take()).flatten() {
                    assert_eq!(delivery.lane, self.lane, "the model has one lane");
                    self.messages -= 1;
                    return Ok(delivery);
                }
                self.session.news.notified().await;
            }
        })
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, u64> {
        // What nobody took is still the session's.
        Box::pin(async { Ok(0) })
    }
}
