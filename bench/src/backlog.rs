//! `backlog`: ten million jobs wait, then are drained: what each process takes of memory.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use wf_schema::config::Profile;

use crate::cli::Options;
use crate::nodes::{self, Node};
use crate::plot::{self, Line, Scale};
use crate::report::{Goal, Report};
use crate::rounds::{Sample, Side, measure};
use crate::work;
use crate::yard::Yard;

/// Jobs in the body of one request.
const BODY: u64 = 100_000;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) async fn backlog(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::new("backlog", "memory of each process while jobs pile up, wait, and are drained");
    let jobs: u64 = options.sized(10_000_000, 20_000);
    report.setting("jobs", jobs);
    report.setting("way", "bulk NDJSON over HTTP to an ingest process, nats-server, one executor process; links of no distance");
    let yard = &Yard::at(Duration::ZERO);
    let lines = &RefCell::new(Vec::new());
    let profiles: &[Profile] = options.sized(&Profile::ALL, &[Profile::Wan]);
    let sides = profiles.iter().map(|profile| {
        Side::new(profile.as_str(), move || async move {
            let (sample, series) = pile_up_and_drain(yard, *profile, jobs).await?;
            lines.borrow_mut().extend(series);
            Ok(sample)
        })
    });
    measure(&mut report, options, 1, sides.collect()).await?;
    let most: Vec<(String, Vec<f64>)> = report
        .figures
        .iter()
        .filter(|figure| figure.what.starts_with("ingest, most") || figure.what.starts_with("executor, most"))
        .map(|figure| (format!("{}: {}, in MB", figure.side, figure.what), figure.samples.clone()))
        .collect();
    for (name, samples) in most {
        report.ratio_of(name, &samples, Some(Goal::AtMost(200.0)));
    }
    let lines = lines.take();
    if let Some(path) = &options.svg {
        let axes = plot::Axes {
            title: "Memory while jobs pile up and are drained",
            x: "time, s",
            y: "resident, MB",
            scale: Scale::Even,
        };
        plot::draw(path, &axes, &lines)?;
    }
    report.series = lines;
    report.finish(options.json.as_deref())
}

async fn pile_up_and_drain(yard: &Yard, profile: Profile, jobs: u64) -> anyhow::Result<(Sample, Vec<Line>)> {
    let began = Instant::now();
    let url = yard.link().url();
    let ingest = Node::ingest(&url, profile.as_str(), &[]).await?;
    let watched = |name: &'static str, pid: Option<u32>| pid.map(|pid| Watch::new(name, pid, began));
    let server = watched("nats-server", Some(yard.server().pid()));
    let taking = watched("ingest", ingest.pid());
    let mut sender = connect(ingest.address.context("the ingest does not say where it listens")?).await?;
    let mut next = 0;
    while next < jobs {
        let end = (next + BODY).min(jobs);
        post(&mut sender, body(next..end)).await?;
        next = end;
    }
    let enqueued = began.elapsed();
    // They wait, and nothing happens: memory that is only given back late shows here.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let draining = Instant::now();
    let executor = Node::executor(&url, profile.as_str(), &[]).await?;
    let running = watched("executor", executor.pid());
    let executors = vec![executor];
    nodes::settled(&executors, jobs).await?;
    let drained = draining.elapsed();
    let watches: Vec<Watch> = [server, taking, running].into_iter().flatten().collect();
    let mut sample = Sample::default().checked(jobs);
    let mut series = Vec::new();
    for watch in watches {
        let (name, points) = watch.end();
        let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
        sample = sample.and(most_of(name), "MB", most);
        series.push(Line { name: format!("{name}, {profile}"), points });
    }
    nodes::end(executors, jobs).await?;
    ingest.end().await?;
    let rate = |took: Duration| jobs as f64 / took.as_secs_f64();
    Ok((sample.and("enqueued", "jobs/s", rate(enqueued)).and("drained", "jobs/s", rate(drained)), series))
}

fn most_of(name: &str) -> &'static str {
    match name {
        "ingest" => "ingest, most",
        "executor" => "executor, most",
        _ => "nats-server, most",
    }
}

async fn connect(address: std::net::SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(TcpStream::connect(address).await?)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// # Errors
/// When the bulk is not taken as a whole.
async fn post(sender: &mut SendRequest<Full<Bytes>>, body: Bytes) -> anyhow::Result<()> {
    let request = Request::post("/v1/jobs/batch").header("host", "ingest").header("content-type", "application/x-ndjson");
    let response = sender.send_request(request.body(Full::new(body))?).await?;
    let status = response.status();
    let said = response.into_body().collect().await?.to_bytes();
    anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&said));
    Ok(())
}

/// The seed's jobs, a line each.
fn body(numbers: std::ops::Range<u64>) -> Bytes {
    use std::fmt::Write;
    let mut text = String::with_capacity(64 * (numbers.end - numbers.start) as usize);
    for n in numbers {
        let work::Pair { a, b } = work::pair(n);
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{{\"kind\":\"math_add\",\"args\":{{\"a\":{a},\"b\":{b}}}}}");
    }
    text.into()
}

/// Looks at the memory of a process until it is told to end.
struct Watch {
    name: &'static str,
    stop: tokio::task::JoinHandle<()>,
    seen: std::sync::Arc<parking_lot::Mutex<Vec<(f64, f64)>>>,
}

impl Watch {
    fn new(name: &'static str, pid: u32, began: Instant) -> Self {
        let seen = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        let points = seen.clone();
        let stop = tokio::spawn(async move {
            while let Some(bytes) = resident(pid) {
                points.lock().push((began.elapsed().as_secs_f64(), bytes as f64 / 1e6));
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { name, stop, seen }
    }

    fn end(self) -> (&'static str, Vec<(f64, f64)>) {
        self.stop.abort();
        (self.name, std::mem::take(&mut *self.seen.lock()))
    }
}

/// The resident memory of a process in bytes, while it lives.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
