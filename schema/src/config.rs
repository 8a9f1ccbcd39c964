//! The configuration of a node and its factory: typed settings, tuned for a network by a profile.
//!
//! A value comes from the strongest source that says anything: the command line, then the environment (`WF_*`), then
//! the TOML file, then the profile's default. All settings stand in one table, [`SECTIONS`], from which everything
//! else is derived: reading, names of variables, limits, messages, `wf config` and docs/configuration.md.
//!
//! ```
//! use wf_schema::config::{Loader, Profile};
//!
//! let loaded = Loader::new().env([("WF_PROFILE", "wan")]).flags([("batch.linger", "8 ms")]).load()?;
//! assert_eq!(loaded.config.profile(), Profile::Wan);
//! assert_eq!(loaded.config.batch().linger.as_millis(), 8);
//! assert_eq!(loaded.config.batch().wire_bytes.to_string(), "64 KiB");
//!
//! let error = Loader::new().env([("WF_BATCH_LINGER", "5 min")]).load().unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "`batch.linger` = `5 min` (environment WF_BATCH_LINGER) is out of range: allowed is 0 s to 1 s"
//! );
//! # Ok::<(), wf_schema::config::ConfigError>(())
//! ```

mod broker_url;
mod check;
mod error;
mod knob;
mod layer;
mod load;
mod log;
mod origin;
mod profile;
mod quantity;
mod read;
mod reference;
mod replicas;
mod sections;
mod setting;
mod size;
mod span;
mod token;

pub use broker_url::BrokerUrl;
pub use error::{ConfigError, Given, Warning};
pub use knob::{DefaultValue, Knob, PROFILE, Section, knobs};
pub use load::{Loaded, Loader};
pub use log::{LogFilter, LogFormat};
pub use origin::Origin;
pub use profile::{Profile, ProfileSetting};
pub use quantity::QuantityError;
pub use read::Row;
pub use reference::{EXAMPLE, reference};
pub use replicas::Replicas;
pub use sections::{
    BatchSettings, BrokerSettings, Config, ExecutorSettings, FactorySettings, IngestSettings, LogSettings, PrefetchSettings,
    PublishSettings, PullSettings, SECTIONS,
};
pub use size::Size;
pub use span::Span;
pub use token::{ClusterName, DomainName, InboxPrefix, NodeName, Prefix, ServerTags};
