//! `wf enqueue`: a file of jobs into the broker, without HTTP.

use std::sync::Arc;
use std::time::Duration;

use wf_schema::config::BrokerUrl;

use super::run::open;
use super::{Failure, Session};
use crate::cli::EnqueueArgs;
use crate::exit::Exit;
use work_factory::connect::Layout;
use work_factory::enqueue::{EnqueueOptions, enqueue as pump};
use work_factory::settings;

pub(super) async fn enqueue(mut session: Session, args: EnqueueArgs) -> Result<Exit, Failure> {
    if session.config().broker().url == BrokerUrl::Memory {
        return Err(Failure::usage(
            "jobs enqueued to memory:// are gone when wf enqueue ends: name a broker that keeps them",
            Exit::Usage,
        ));
    }
    let input = open(&args.file)?;
    let broker = session.connect(Layout::Make).await?;
    let config = session.config();
    let options = EnqueueOptions {
        batch_jobs: config.batch().jobs as usize,
        batch_raw_bytes: settings::raw_bytes_of_a_batch(config),
        window: settings::window(config),
        patience: settings::PATIENCE,
        limits: settings::limits(config),
        pause: config.batch().linger.max(Duration::from_millis(1)),
        show: session.show(),
        tuner: session.tuner.clone(),
    };
    let outcome = Box::pin(pump(Arc::clone(&broker), input, options, session.stop.clone())).await;
    let closed = broker.close().await;
    let summary = outcome.map_err(|error| Failure::failed(error, Exit::Failed))?;
    closed?;
    session.summarize(&summary)?;
    Ok(if summary.rejected == 0 && !summary.interrupted { Exit::Done } else { Exit::Failed })
}
