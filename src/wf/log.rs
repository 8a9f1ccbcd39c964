//! What is written to standard error while things run.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use wf_schema::config::{LogFormat, LogSettings};

/// Crates whose `info` tells what only their authors care for. Whoever asks for them by name gets them.
const CHATTY: &str = "async_nats=warn,fjall=warn,lsm_tree=warn";

/// Starts logging at `level`, which may be a filter. Later calls change nothing.
pub(crate) fn start(settings: &LogSettings, level: &str) {
    let filter = EnvFilter::try_new(format!("{CHATTY},{level}")).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _already = match settings.format {
        LogFormat::Json => log.json().try_init(),
        _ => log.with_ansi(colours).try_init(),
    };
    // A handler's panic becomes an outcome; what is told of it has the form of the log.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}
