//! `wf serve`: ingest and executor in one process.

use work_factory::connect::Layout;

use super::executor::{finish, start};
use super::ingest::{Front, ended_by, open_spool};
use super::{Failure, Session};
use crate::exit::Exit;

pub(super) async fn serve(mut session: Session) -> Result<Exit, Failure> {
    let spool = open_spool(&session).await?;
    let (broker, refusal) = session.connect_soon(Layout::Make).await?;
    let front = Front::bind(&broker, spool, &session).await?;
    let executor = start(&broker, &session)?;
    let stop = session.stop.clone();
    // HTTP stops first: whoever has a 202 has it from a broker that is still open.
    let stopped = async {
        let ended = stop.run_until_cancelled(executor.stopped()).await;
        stop.cancel();
        ended.unwrap_or(Ok(()))
    };
    let (served, ended, refused) = tokio::join!(front.serve(stop.clone()), stopped, ended_by(refusal, &stop));
    finish(executor, session.config()).await;
    let closed = broker.close().await;
    refused?;
    ended.map_err(|error| Failure::failed(error, Exit::Failed))?;
    served?;
    closed?;
    Ok(Exit::Done)
}
