//! `wf run`: a file of jobs, from its beginning to its end.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use wf_executor::{Registry, stock};
use wf_schema::config::BrokerUrl;

use super::{Failure, Session};
use crate::cli::RunArgs;
use crate::exit::Exit;
use work_factory::connect::{BrokerUnavailable, Layout};
use work_factory::feed::{FeedError, FileId, Input};
use work_factory::run::{self, Destination, Earlier, RunError, RunOptions};
use work_factory::settings;

pub(super) async fn run(mut session: Session, args: RunArgs) -> Result<Exit, Failure> {
    if args.resume && session.config().broker().url == BrokerUrl::Memory {
        return Err(Failure::usage(
            "there is nothing to resume with memory://: it keeps nothing when the process ends",
            Exit::Usage,
        ));
    }
    let input = open(&args.file)?;
    let results = Destination::check(args.results, input.file).map_err(|error| failure(error.into()))?;
    let broker = session.connect(Layout::Make).await?;
    let config = session.config();
    let options = RunOptions {
        results: Some(results),
        earlier: match (args.resume, args.fresh) {
            (true, _) => Earlier::Resume,
            (_, true) => Earlier::Forget,
            _ => Earlier::Refuse,
        },
        batch_jobs: config.batch().jobs as usize,
        batch_raw_bytes: settings::raw_bytes_of_a_batch(config),
        window: settings::window(config),
        patience: settings::PATIENCE,
        executor: settings::executor(config, []).map_err(BrokerUnavailable::from)?,
        drain: config.executor().drain_deadline,
        limits: settings::limits(config),
        show: session.show(),
        tuner: session.tuner.clone(),
    };
    let outcome =
        Box::pin(run::run(broker.clone(), stock::register(Registry::new()), input, options, session.stop.clone())).await;
    let closed = broker.close().await;
    let summary = outcome.map_err(failure)?;
    closed?;
    for reason in summary.why.reasons() {
        let _unheard = writeln!(std::io::stderr(), "error: {reason}");
    }
    session.summarize(&summary)?;
    Ok(if summary.discarded == 0 && summary.unknown == 0 { Exit::Done } else { Exit::Failed })
}

/// Opens the file of jobs. A run is known by the file's whole path; all runs of standard input at one broker are one.
pub(super) fn open(file: &Path) -> Result<Input, Failure> {
    if file == Path::new("-") {
        let stdin = std::io::stdin();
        let file = FileId::of(&stdin);
        return Ok(Input { name: "standard input".to_owned(), size: None, file, reader: Box::new(stdin) });
    }
    let failed = |error: std::io::Error| {
        Failure::usage(format!("the file of jobs {} cannot be read: {error}", file.display()), Exit::Usage)
    };
    let reader = File::open(file).map_err(failed)?;
    let about = reader.metadata().map_err(failed)?;
    if about.is_dir() {
        return Err(Failure::usage(format!("{} is a directory: name a file of jobs, one a line", file.display()), Exit::Usage));
    }
    let name = std::fs::canonicalize(file).map_err(failed)?.display().to_string();
    let (size, file) = (about.is_file().then_some(about.len()), FileId::of(&reader));
    Ok(Input { name, size, file, reader: Box::new(reader) })
}

fn failure(error: RunError) -> Failure {
    let exit = match &error {
        RunError::Journal(run::JournalError::Broker(cause)) | RunError::Broker(cause) if cause.is_retryable() => {
            Exit::Unreachable
        }
        RunError::Journal(run::JournalError::Broker(_)) => Exit::Failed,
        RunError::Journal(_) | RunError::Feed(FeedError::Changed { .. }) => Exit::Usage,
        RunError::Results(error) if error.is_usage() => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::failed(error, exit)
}
