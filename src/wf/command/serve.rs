//! `wf serve`: ingest and executor in one process.

use work_factory::connect::Layout;

use super::executor::{finish, start};
use super::ingest::Front;
use super::{Failure, Session};
use crate::exit::Exit;

pub(super) async fn serve(mut session: Session) -> Result<Exit, Failure> {
    let broker = session.connect(Layout::Make).await?;
    let front = Front::bind(&broker, &session).await?;
    let executor = start(&broker, &session)?;
    let stop = session.stop.clone();
    // HTTP stops first: whoever has a 202 has it from a broker that is still open.
    let (served, ended) = tokio::join!(front.serve(stop.clone()), async {
        let ended = stop.run_until_cancelled(executor.stopped()).await;
        stop.cancel();
        ended.unwrap_or(Ok(()))
    });
    finish(executor, session.config()).await;
    let closed = broker.close().await;
    ended.map_err(|error| Failure::failed(error, Exit::Failed))?;
    served?;
    closed?;
    Ok(Exit::Done)
}
