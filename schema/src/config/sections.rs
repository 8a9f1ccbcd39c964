//! The table: every section, every knob, its type, default, limits and reason. Nothing of this is written twice.
//!
//! A default is one text for all profiles, or four in the order local, lan, wan, wireless.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::broker_url::BrokerUrl;
use super::knob::{DefaultValue, Knob, Section, judge};
use super::log::{LogFilter, LogFormat};
use super::profile::{Profile, ProfileSetting};
use super::read::Reader;
use super::replicas::Replicas;
use super::setting::Setting;
use super::size::Size;
use super::token::{ClusterName, DomainName, InboxPrefix, NodeName, Prefix, ServerTags};
use crate::Queue;

macro_rules! default_value {
    ([$($value:literal),+]) => { DefaultValue::PerProfile([$($value),+]) };
    ($value:literal) => { DefaultValue::Same($value) };
}

macro_rules! limits {
    () => {
        None
    };
    ($min:literal $max:literal) => {
        Some(($min, $max))
    };
}

macro_rules! knob {
    ($section:ident $field:ident $type:ty, $default:tt, [$($limit:literal)*], $($doc:literal)+) => {
        Knob {
            key: concat!(stringify!($section), ".", stringify!($field)),
            default: default_value!($default),
            limits: limits!($($limit)*),
            expected: <$type as Setting>::EXPECTED,
            doc: concat!($($doc),+),
            judge: judge::<$type>,
        }
    };
}

macro_rules! sections {
    ($(
        $(#[doc = $about:literal])+
        $Section:ident $section:ident {$(
            $(#[doc = $why:literal])+
            $field:ident: $type:ty = $default:tt $(in $min:literal ..= $max:literal)?;
        )+}
    )+) => {
        $(
            $(#[doc = $about])+
            #[derive(Clone, Debug, PartialEq)]
            #[non_exhaustive]
            pub struct $Section {$(
                $(#[doc = $why])+
                pub $field: $type,
            )+}

            impl $Section {
                /// Takes every field before it gives up on any, so that all that is wrong is told at once.
                fn read(reader: &mut Reader<'_>) -> Option<Self> {
                    $(let $field = reader.take::<$type>(&knob!($section $field $type, $default, [$($min $max)?], $($why)+));)+
                    Some(Self { $($field: $field?),+ })
                }
            }
        )+

        /// The settings of a node and of the factory it belongs to. Made by a [`super::Loader`] only, which refuses
        /// what cannot be: a `Config` never holds values out of their limits or against each other.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            pub(super) setting: ProfileSetting,
            pub(super) profile: Profile,
            $($section: $Section,)+
        }

        impl Config {
            $(
                $(#[doc = $about])+
                pub fn $section(&self) -> &$Section {
                    &self.$section
                }
            )+

            pub(super) fn read(setting: ProfileSetting, profile: Profile, reader: &mut Reader<'_>) -> Option<Self> {
                $(let $section = $Section::read(reader);)+
                Some(Self { setting, profile, $($section: $section?),+ })
            }
        }

        /// The sections, with all their knobs.
        pub static SECTIONS: &[Section] = &[$(
            Section {
                name: stringify!($section),
                doc: concat!($($about),+),
                knobs: &[$(knob!($section $field $type, $default, [$($min $max)?], $($why)+)),+],
            }
        ),+];
    };
}

sections! {
    /// The broker that stores and delivers batches, and the connections to it.
    BrokerSettings broker {
        /// Which broker, and where: inside this process (`embedded:PATH`, `memory://`) or NATS (`nats://HOST:PORT`,
        /// `tls://HOST:PORT`).
        url: BrokerUrl = "embedded:.wf/broker";
        /// The first token of every subject at the broker: keeps factories on one account apart.
        prefix: Prefix = "wf";
        /// The JetStream domain of the factory, where servers have domains: a node at a leaf node reaches the factory at the
        /// hub by the hub's. Unset, the JetStream of the server that is connected to is used; a factory is then only set up
        /// there if that server has no domain.
        domain: Option<DomainName> = "unset";
        /// A file with NATS credentials (JWT and key). Unset, the node connects without.
        creds: Option<PathBuf> = "unset";
        /// A file with root certificates (PEM) to trust beside the system's, for `tls://`.
        root_certificates: Option<PathBuf> = "unset";
        /// The first token of the subjects at which answers arrive. With one of its own, a role cannot read the
        /// answers to another.
        inbox_prefix: InboxPrefix = "_INBOX";
        /// How long one attempt to connect may take.
        connect_timeout: Duration = ["5 s", "10 s", "15 s", "20 s"] in "100 ms" ..= "5 min";
        /// How long a starting node keeps trying to connect before it gives up. One with a spool starts without the broker.
        connect_deadline: Duration = "1 min" in "100 ms" ..= "1 d";
        /// How long to wait for the answer to one request.
        request_timeout: Duration = ["10 s", "10 s", "20 s", "30 s"] in "100 ms" ..= "5 min";
        /// How often the link is pinged: keeps it alive through firewalls, and finds it dead after three.
        ping_interval: Duration = ["2 s", "2 s", "3 s", "5 s"] in "100 ms" ..= "1 min";
        /// How many connections to publish over, and as many to consume over: more than one where a single
        /// connection cannot fill the link.
        connections: u32 = ["1", "1", "2", "1"] in "1" ..= "16";
    }

    /// How the jobs of a lane are gathered into batches. A batch leaves when nothing else is under way, or when the
    /// first of these is reached.
    BatchSettings batch {
        /// The longest that a job waits for others to travel with.
        linger: Duration = ["1 ms", "2 ms", "5 ms", "20 ms"] in "0 s" ..= "1 s";
        /// The size of a full batch on the wire.
        wire_bytes: Size = ["32 KiB", "64 KiB", "64 KiB", "32 KiB"] in "1 KiB" ..= "512 KiB";
        /// The jobs in a full batch.
        jobs: u32 = "4000" in "1" ..= "65536";
        /// The size of a full batch before compression: what whoever reads it must hold in memory.
        raw_bytes: Size = "8 MiB" in "4 KiB" ..= "16 MiB";
        /// The time that the jobs of a full batch are expected to run, one after another, by what executors have
        /// measured: keeps slow jobs from sitting on one node while others idle. Not for batches cut from a file.
        run_time: Duration = "1 s" in "1 ms" ..= "10 min";
    }

    /// How much may be on its way to the broker, unanswered. The first of these that is reached holds publishing.
    PublishSettings publish {
        /// The bytes on their way.
        window_bytes: Size = ["8 MiB", "16 MiB", "16 MiB", "4 MiB"] in "64 KiB" ..= "1 GiB";
        /// The messages on their way: too many of them starve consumers.
        window_messages: u32 = ["256", "512", "1000", "256"] in "1" ..= "5000";
    }

    /// How much an executor fetches ahead at the most, over all its lanes; the first of these that is reached holds
    /// fetching. It fetches what its free slots can start, and what it starts in two round trips to the broker, which
    /// is mostly less.
    PrefetchSettings prefetch {
        /// The bytes fetched or asked for. The upper limit keeps what NATS has to send below the 64 MiB at which it
        /// closes a connection that reads too slowly.
        bytes: Size = ["8 MiB", "16 MiB", "32 MiB", "16 MiB"] in "64 KiB" ..= "40 MiB";
        /// The work fetched ahead, in measured run time: keeps batches from waiting here while others idle. A running
        /// batch that is split for others is cut into pieces of half of it, in time of one slot.
        work: Duration = "2 s" in "10 ms" ..= "10 min";
    }

    /// How an executor asks a NATS server for batches.
    PullSettings pull {
        /// How long one request for batches stays open at the server: the longest stall after a lost one.
        expires: Duration = ["15 s", "15 s", "15 s", "10 s"] in "1 s" ..= "2 min";
        /// How often the server says that an open request is still alive.
        heartbeat: Duration = ["5 s", "5 s", "5 s", "4 s"] in "100 ms" ..= "1 min";
    }

    /// Taking jobs from people, over HTTP.
    IngestSettings ingest {
        /// Where HTTP is served.
        listen: SocketAddr = "127.0.0.1:8080";
        /// The largest body of a request, once decompressed. Bulk bodies are streamed, so this costs no memory.
        body_limit: Size = "1 GiB" in "1 KiB" ..= "1 TiB";
        /// The largest args of one job.
        args_limit: Size = "256 KiB" in "64 B" ..= "256 KiB";
        /// How long a caller waits for room when the publish window is full, before it is told to come back later.
        room_timeout: Duration = "5 s" in "0 s" ..= "5 min";
        /// A folder on a local disk for jobs that come while the broker cannot be reached: they are accepted, and shipped
        /// when it can be, which need not be so at the start. Unset, they are refused with 503. One process's at a time.
        spool: Option<PathBuf> = "unset";
        /// The most that the spool may hold; then 507. Its folder may take half as much again until what was shipped is
        /// cleared from it.
        spool_bytes: Size = "4 GiB" in "1 MiB" ..= "1024 TiB";
        /// How long nothing may be heard of the broker, while something is asked of it, before it counts as unreachable:
        /// from then on jobs go to the spool or are refused at once, and only probes ask, until one is answered.
        unreachable_after: Duration = ["3 s", "3 s", "5 s", "10 s"] in "100 ms" ..= "5 min";
        /// How long jobs that are on their way when the broker goes away are tried again, before they are refused or go to
        /// the spool. One request to the broker is never cut short.
        store_timeout: Duration = "10 s" in "0 s" ..= "5 min";
        /// The most memory for bodies of requests that are being read, or wait for room; then 429.
        body_memory: Size = "256 MiB" in "32 MiB" ..= "4095 MiB";
        /// The pace at which a body must come, a second, after the first `ingest.idle_timeout`: cuts off who drips.
        body_pace: Size = "1 KiB" in "1 B" ..= "1 GiB";
        /// How long a body may take to come in all. Time in which the server holds its caller back does not count.
        body_timeout: Duration = "1 h" in "1 s" ..= "1 d";
        /// How many connections may be open at once; further ones wait to be accepted.
        connections: u32 = "8192" in "1" ..= "1000000";
        /// How long requests under way may go on when the node is told to stop.
        drain_deadline: Duration = "10 s" in "0 s" ..= "1 h";
        /// How long a caller may take to send the head of a request.
        header_timeout: Duration = "10 s" in "100 ms" ..= "5 min";
        /// How long a caller may leave its connection silent, also in the middle of a body.
        idle_timeout: Duration = "1 min" in "1 s" ..= "1 h";
        /// The longest that a caller may ask to wait for an outcome (`?wait=`).
        wait_limit: Duration = "1 min" in "0 s" ..= "10 min";
    }

    /// Running jobs.
    ExecutorSettings executor {
        /// The queues whose jobs are run here, at all priorities.
        queues: Vec<Queue> = "default";
        /// How many jobs run at once. Does not depend on the network: nobody waits for a round trip a job.
        concurrency: u32 = "50" in "1" ..= "100000";
        /// How long running jobs may go on when the node is told to stop; what has not started is given back at once.
        drain_deadline: Duration = "30 s" in "0 s" ..= "1 d";
        /// What the node calls itself in records and on screens. Unset, it makes a name from host and process.
        name: Option<NodeName> = "unset";
    }

    /// What all nodes share. `wf broker setup` writes it to the broker; a node that finds it there only binds to it.
    FactorySettings factory {
        /// How long a delivered batch stays its executor's without a sign of life. Renewed at a third of it; after
        /// it, another executor takes over.
        lease: Duration = ["30 s", "30 s", "30 s", "1 min"] in "3 s" ..= "1 h";
        /// On how many servers of a NATS cluster each message is stored.
        replicas: Replicas = "1";
        /// Which of several connected NATS clusters stores them. Unset, the one that is asked.
        placement_cluster: Option<ClusterName> = "unset";
        /// Which servers of it: those that have all of these tags (`server_tags` in their configuration).
        placement_tags: Option<ServerTags> = "unset";
        /// The most that all waiting jobs may take at the broker.
        jobs_bytes: Size = "8 GiB" in "1 MiB" ..= "1024 TiB";
        /// The most that one lane may take in the embedded broker, so that a queue nobody serves does not fill the
        /// factory.
        lane_bytes: Size = "2 GiB" in "1 MiB" ..= "1024 TiB";
        /// The most messages that one lane may have on NATS, for the same reason: it has no limit of bytes a lane.
        lane_messages: u32 = "100000" in "1" ..= "1000000000";
        /// The most messages of one lane that may be delivered and not settled, over all executors.
        lane_in_flight: u32 = "50000" in "1" ..= "1000000";
        /// The most requests for batches of one lane that may be open at a NATS server, over all executors.
        lane_pulls: u32 = "4096" in "16" ..= "1000000";
        /// How long the broker knows a message's id and refuses its repetition.
        dedup_window: Duration = "2 min" in "6 s" ..= "1 d";
        /// How long outcomes are kept.
        results_age: Duration = "1 d" in "1 min" ..= "365 d";
        /// The most that outcomes may take at the broker; the oldest go first.
        results_bytes: Size = "2 GiB" in "1 MiB" ..= "1024 TiB";
        /// The most records of outcomes, the oldest of which go first; a NATS server keeps about a third of a KiB in
        /// memory for each.
        results_messages: u32 = "500000" in "1000" ..= "1000000000";
        /// How long dead letters are kept.
        dead_age: Duration = "14 d" in "1 min" ..= "3650 d";
        /// The most that dead letters may take at the broker.
        dead_bytes: Size = "1 GiB" in "1 MiB" ..= "1024 TiB";
        /// The most that keyed records (claims, heartbeats, cursors) may take on NATS.
        state_bytes: Size = "256 MiB" in "1 MiB" ..= "1 TiB";
    }

    /// What is written to standard error.
    LogSettings log {
        /// The level, or a filter such as `info,wf_nats=debug`.
        level: LogFilter = "info";
        /// `text` for people, `json` for machines.
        format: LogFormat = "text";
    }
}

impl Config {
    /// The profile in force.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// What the setting `profile` says; with [`ProfileSetting::Auto`] the program measures the link and loads again.
    pub fn profile_setting(&self) -> ProfileSetting {
        self.setting
    }
}
