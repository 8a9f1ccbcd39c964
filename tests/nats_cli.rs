//! Jobs from the real nats CLI, as people type them. Shows as ignored where neither `nats` nor Go is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "support/support.rs"]
#[allow(dead_code, unused_imports, reason = "support of all end-to-end tests")]
mod support;
#[path = "readme/tools.rs"]
#[allow(dead_code, reason = "shared with the test of the README")]
mod tools;

use std::collections::BTreeSet;
use std::future::Future;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::io::AsyncWriteExt;
use wf_nats::NatsBroker;
use wf_nats::testing::{ServerOptions, TestServer};

use support::{Ended, Heard, Process, Stage, connect, dead_letters, echoes, look, outcomes_of, until};

fn main() -> ExitCode {
    let trials = vec![
        trial("a single job", || single("")),
        trial("a single job, acknowledged", || single("-J")),
        trial("an array", || array("")),
        trial("an array, acknowledged", || array("-J")),
        trial("a file, a message a line", lines),
        trial("a file, as one message", file),
        trial("with an id, once", id),
        trial("over several lines", pretty),
        trial("with an answer", request),
        trial("bad ones among good ones", bad_among_good),
        trial("to a queue with a priority", priority),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial<T: Future<Output = ()>>(name: &str, test: impl FnOnce() -> T + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || {
        if !tools::is_there("nats") {
            return Ok(Completion::ignored_with("neither nats nor go is there"));
        }
        tools::nats().map_err(Failed::from)?;
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(test());
        Ok(Completion::Completed)
    })
}

/// A factory with one executor, and the nats CLI beside it.
struct Factory {
    server: TestServer,
    stage: Stage,
    executor: Process,
    eye: Arc<NatsBroker>,
    heard: Heard,
}

impl Factory {
    async fn start() -> Self {
        let server = TestServer::start(ServerOptions::new());
        let stage = Stage::new();
        stage.run(&format!("broker setup --broker {}", server.url())).await.expect(0);
        let eye = connect(&server).await;
        let heard = Heard::listen(eye.clone()).await;
        let executor = stage.start(&format!("executor --queues default,mail --broker {}", server.url()));
        Self { server, stage, executor, eye, heard }
    }

    /// `nats`, with these arguments and this at its standard input.
    async fn nats(&self, args: &[&str], input: &str) -> Ended {
        let mut command = self.stage.command(tools::nats().unwrap());
        // Contexts of whoever runs the tests are none of their business.
        command.env("XDG_CONFIG_HOME", self.stage.path("config")).args(["--server", &self.server.url()]).args(args);
        command.stdin(Stdio::piped());
        let mut process = self.stage.started_as(&format!("nats {}", args.join(" ")), command);
        let mut stdin = process.stdin();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        process.wait().await.expect(0)
    }

    /// Waits until there are `count` outcomes.
    async fn outcomes(&mut self, count: usize) -> BTreeSet<String> {
        let found = until("outcomes", async || {
            assert!(self.executor.is_running());
            let found = outcomes_of(&*self.eye, &self.heard.batches()).await;
            (found.len() >= count).then_some(found)
        })
        .await;
        self.idle().await;
        assert_eq!(found.len(), count);
        found.into_values().collect()
    }

    /// Waits until there is nothing left to do.
    async fn idle(&self) {
        until("an empty lane", async || {
            let stats = look(&*self.eye, "default.normal").await;
            (stats.pending + stats.in_flight == 0).then_some(())
        })
        .await;
    }
}

fn job(args: &str) -> String {
    format!("{{\"kind\":\"echo\",\"args\":{args},\"store_result\":true}}")
}

fn told(args: &[&str]) -> BTreeSet<String> {
    args.iter().map(|args| format!("echo completed 1 {args}")).collect()
}

/// The flags of `nats pub`, `-J` or nothing, and what goes behind them.
fn publish<'a>(flags: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    ["pub"].into_iter().chain(flags.split_whitespace()).chain(["wf.jobs.default"]).chain(more.iter().copied()).collect()
}

async fn single(flags: &'static str) {
    let mut factory = Factory::start().await;
    factory.nats(&publish(flags, &[&job("\"one\"")]), "").await;
    assert_eq!(factory.outcomes(1).await, told(&["\"one\""]));
}

async fn array(flags: &'static str) {
    let mut factory = Factory::start().await;
    let jobs = format!("[{}, {},\n {}]", job("1"), job("2"), job("3"));
    factory.nats(&publish(flags, &[&jobs]), "").await;
    assert_eq!(factory.outcomes(3).await, told(&["1", "2", "3"]));
}

/// `nats pub -J wf.jobs.default --send-on newline --no-templates -q < jobs.ndjson`
async fn lines() {
    let mut factory = Factory::start().await;
    let jobs = echoes(0..500, ",\"store_result\":true");
    factory.nats(&publish("-J", &["--send-on", "newline", "--no-templates", "-q"]), &jobs).await;
    let wanted: Vec<String> = (0..500).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(factory.outcomes(500).await, told(&wanted.iter().map(String::as_str).collect::<Vec<_>>()));
}

/// NDJSON, all of it one message.
async fn file() {
    let mut factory = Factory::start().await;
    let jobs = echoes(0..500, ",\"store_result\":true");
    factory.nats(&publish("-J", &["--send-on", "eof", "--no-templates", "-q"]), &jobs).await;
    let wanted: Vec<String> = (0..500).map(|n| format!("{{\"n\":{n}}}")).collect();
    assert_eq!(factory.outcomes(500).await, told(&wanted.iter().map(String::as_str).collect::<Vec<_>>()));
}

/// The same id twice is the same message.
async fn id() {
    let mut factory = Factory::start().await;
    for _ in 0..3 {
        factory.nats(&publish("-J", &[&job("17"), "-H", "Nats-Msg-Id:order-17"]), "").await;
    }
    factory.nats(&publish("-J", &[&job("18"), "-H", "Nats-Msg-Id:order-18"]), "").await;
    assert_eq!(factory.outcomes(2).await, told(&["17", "18"]));
}

async fn pretty() {
    let mut factory = Factory::start().await;
    let one = "{\n  \"kind\": \"echo\",\n  \"args\": \"{ on lines }\",\n  \"store_result\": true\n}\n";
    factory.nats(&publish("-J", &[one]), "").await;
    let many = format!("\n  [\n  {},\n  {}\n]\n", one, job("2"));
    factory.nats(&publish("-J", &[&many]), "").await;
    assert_eq!(factory.outcomes(3).await, told(&["\"{ on lines }\"", "2"]));
}

/// `nats req` prints the server's acknowledgement.
async fn request() {
    let mut factory = Factory::start().await;
    let ended = factory.nats(&["req", "wf.jobs.default", &job("1")], "").await;
    assert!(ended.stdout.contains("WF_JOBS"), "{}", ended.stdout);
    assert_eq!(factory.outcomes(1).await, told(&["1"]));
}

async fn bad_among_good() {
    let mut factory = Factory::start().await;
    let lines = [job("1"), "{\"kind\":".into(), job("2"), "{\"kind\":\"echo\"}".into(), job("3")].join("\n");
    factory.nats(&publish("-J", &["--send-on", "newline", "--no-templates", "-q"]), &format!("{lines}\n")).await;
    let array = format!("[{}, 7, {{\"kind\":\"echo\",\"args\":1,\"colour\":\"red\"}}, {}]", job("4"), job("5"));
    factory.nats(&publish("-J", &[&array]), "").await;
    // What is no job has an outcome as well, and is kept as a dead letter.
    let found = factory.outcomes(9).await;
    let (completed, discarded) = found.into_iter().partition::<BTreeSet<_>, _>(|told| told.contains(" completed "));
    assert_eq!(completed, told(&["1", "2", "3", "4", "5"]));
    assert!(discarded.iter().all(|told| told.contains(" discarded ")), "{discarded:?}");
    let letters = until("dead letters", async || {
        let letters = dead_letters(&*factory.eye).await;
        (letters.len() >= 4).then_some(letters)
    })
    .await;
    assert_eq!(letters.len(), 4, "{letters:#?}");
}

async fn priority() {
    let mut factory = Factory::start().await;
    for subject in ["wf.jobs.mail", "wf.jobs.mail.high", "wf.jobs.default.low"] {
        factory.nats(&["pub", "-J", subject, &job(&format!("\"{subject}\""))], "").await;
    }
    let told = factory.outcomes(3).await;
    assert!(told.contains("echo completed 1 \"wf.jobs.mail.high\""), "{told:?}");
}
