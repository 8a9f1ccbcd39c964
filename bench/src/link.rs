//! `link`: the emulator alone. With `--to` it is a relay for whatever one likes; without, it shows what it is worth.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use wf_nats::testing::{Conditions, DelayProxy, Stalls, Way};
use wf_schema::config::{QuantityError, Size, Span};

use crate::cli::Options;
use crate::report::Report;
use crate::rounds::{Sample, Side, measure};
use crate::tell;

/// A link, as the command line describes it.
#[derive(Args, Clone, Debug)]
pub(crate) struct LinkArgs {
    #[command(flatten)]
    options: Options,
    /// Relay to this address until interrupted, instead of measuring the emulator.
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<SocketAddr>,
    /// Where to listen.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0", requires = "to")]
    listen: SocketAddr,
    /// How long a round trip takes.
    #[arg(long, value_name = "TIME", default_value = "100 ms", value_parser = time)]
    rtt: Duration,
    /// The most that each direction takes in addition, evenly spread.
    #[arg(long, value_name = "TIME", default_value = "0 s", value_parser = time)]
    jitter: Duration,
    /// What the link carries each way, in bytes per second.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    rate: Option<u64>,
    /// What one connection carries each way, in bytes per second.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    connection_rate: Option<u64>,
    /// The part of the segments that is lost and sent again, e.g. 0.01.
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    loss: f64,
    /// Nothing arrives for `--stall-time` this often.
    #[arg(long, value_name = "TIME", value_parser = time, requires = "stall_time")]
    stall_every: Option<Duration>,
    /// How long a stall lasts.
    #[arg(long, value_name = "TIME", value_parser = time)]
    stall_time: Option<Duration>,
    /// All connections are cut this often.
    #[arg(long, value_name = "TIME", value_parser = time)]
    cut_every: Option<Duration>,
}

fn time(text: &str) -> Result<Duration, QuantityError> {
    Ok(text.parse::<Span>()?.into())
}

fn size(text: &str) -> Result<u64, QuantityError> {
    Ok(text.parse::<Size>()?.bytes())
}

impl LinkArgs {
    fn conditions(&self) -> Conditions {
        let stalls = self.stall_every.zip(self.stall_time).map(|(every, lasting)| Stalls { every, lasting });
        Conditions {
            delay: self.rtt / 2,
            jitter: self.jitter,
            rate: self.rate,
            connection_rate: self.connection_rate,
            loss: self.loss,
            stalls,
        }
    }
}

pub(crate) async fn link(args: &LinkArgs) -> anyhow::Result<()> {
    match args.to {
        Some(to) => relay(args, to).await,
        None => itself(&args.options).await,
    }
}

async fn relay(args: &LinkArgs, to: SocketAddr) -> anyhow::Result<()> {
    let link = DelayProxy::listening(args.listen, to, args.conditions()).context("the link cannot listen")?;
    tell(&format!("{} leads to {to}: {:?}; Ctrl-C ends it", link.address(), args.conditions()));
    let cutting = async {
        match args.cut_every {
            None => std::future::pending().await,
            Some(every) => loop {
                tokio::time::sleep(every).await;
                link.cut();
                tell("cut all connections");
            },
        }
    };
    tokio::select! {
        () = cutting => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    tell(&format!("{} connections, {} bytes up, {} bytes down", link.connections(), link.bytes_up(), link.bytes_down()));
    Ok(())
}

/// Round trips and streams over the emulator, beside what they were told to be.
async fn itself(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::new("link", "the emulator beside what it is told to be: round trips of one byte, and a stream");
    let megabytes = options.sized(400, 4);
    let trips = options.sized(50, 5);
    let ms = Duration::from_millis;
    let far = |rtt: u64| Conditions { delay: ms(rtt) / 2, ..Conditions::default() };
    let cases = [
        ("no emulator", None),
        ("0 ms", Some(far(0))),
        ("1 ms", Some(far(1))),
        ("10 ms", Some(far(10))),
        ("100 ms", Some(far(100))),
        ("100 ms, 20 MB/s", Some(Conditions { rate: Some(20_000_000), ..far(100) })),
        ("100 ms, 30 ms of jitter", Some(Conditions { jitter: ms(30), ..far(100) })),
        ("100 ms, 30 ms of jitter, 1% lost", Some(Conditions { jitter: ms(30), loss: 0.01, ..far(100) })),
        (
            "10 ms, stalls of 30 ms in 100",
            Some(Conditions { stalls: Some(Stalls { every: ms(100), lasting: ms(30) }), ..far(10) }),
        ),
    ];
    report.setting("round trips", trips);
    report.setting("stream", format!("{megabytes} MB, a tenth of that where the rate is limited"));
    let echo = echo()?;
    let sides = cases.into_iter().map(|(name, conditions)| {
        Side::new(name, move || {
            let conditions = conditions.clone();
            let bytes = megabytes * 1_000_000 / if conditions.as_ref().is_some_and(|c| c.rate.is_some()) { 10 } else { 1 };
            async move { tokio::task::spawn_blocking(move || try_out(echo, conditions, trips, bytes)).await? }
        })
    });
    measure(&mut report, options, 3, sides.collect()).await?;
    cuts(echo)?;
    report.note("cut, refused and held in one direction: each was tried once and did as it should");
    report.finish(options.json.as_deref())
}

/// A server that answers a byte with itself, and then swallows a stream and tells its length.
fn echo() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || -> std::io::Result<()> {
                socket.set_nodelay(true)?;
                let mut byte = [0];
                let mut stream = vec![0; 256 << 10];
                loop {
                    socket.read_exact(&mut byte)?;
                    if byte[0] == b'e' {
                        socket.write_all(&byte)?;
                        continue;
                    }
                    let mut length = [0; 8];
                    socket.read_exact(&mut length)?;
                    let mut left = u64::from_le_bytes(length);
                    while left > 0 {
                        let most = stream.len().min(left as usize);
                        left -= match socket.read(&mut stream[..most])? {
                            0 => return Ok(()),
                            read => read as u64,
                        };
                    }
                    socket.write_all(b"s")?;
                }
            });
        }
    });
    Ok(address)
}

fn try_out(echo: SocketAddr, conditions: Option<Conditions>, trips: u32, bytes: u64) -> anyhow::Result<Sample> {
    let link = conditions.map(|conditions| DelayProxy::with(echo, conditions));
    let mut socket = TcpStream::connect(link.as_ref().map_or(echo, DelayProxy::address))?;
    socket.set_nodelay(true)?;
    let mut byte = [0];
    let mut times = Vec::new();
    for _ in 0..trips {
        let began = Instant::now();
        socket.write_all(b"e")?;
        socket.read_exact(&mut byte)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let (median, least, _) = crate::report::spread(&times[1..]);
    let began = Instant::now();
    socket.write_all(b"s")?;
    socket.write_all(&bytes.to_le_bytes())?;
    let block = vec![7; 256 << 10];
    let mut left = bytes;
    while left > 0 {
        let most = block.len().min(left as usize);
        socket.write_all(&block[..most])?;
        left -= most as u64;
    }
    socket.read_exact(&mut byte)?;
    let rate = bytes as f64 / 1e6 / began.elapsed().as_secs_f64();
    let sample = Sample::default().and("round trip, median", "ms", median).and("round trip, least", "ms", least);
    Ok(sample.and("stream", "MB/s", rate))
}

/// That connections end when they are cut, are refused when they should be, and are silent one way when held.
fn cuts(echo: SocketAddr) -> anyhow::Result<()> {
    let link = DelayProxy::start(echo, Duration::ZERO);
    let mut byte = [0];
    let mut socket = TcpStream::connect(link.address())?;
    socket.write_all(b"e")?;
    socket.read_exact(&mut byte)?;
    link.hold(Way::Down);
    socket.write_all(b"e")?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    anyhow::ensure!(socket.read(&mut byte).is_err(), "an answer came through a direction that was held");
    link.resume(Way::Down);
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.read_exact(&mut byte)?;
    link.cut();
    anyhow::ensure!(!matches!(socket.read(&mut byte), Ok(1..)), "a connection that was cut still carries");
    link.refuse(true);
    let mut refused = TcpStream::connect(link.address())?;
    refused.set_read_timeout(Some(Duration::from_secs(10)))?;
    anyhow::ensure!(!matches!(refused.read(&mut byte), Ok(1..)), "a connection was let through that should not be");
    Ok(())
}
