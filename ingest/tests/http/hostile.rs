//! Input that is meant to hurt: each is refused with a reason, or taken, in bounded memory, and the next request is
//! served as if nothing had been.

use std::time::{Duration, Instant};

use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use futures::stream;
use reqwest::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wf_ingest::HttpOptions;

use crate::support::Puppet;
use crate::support::http::{Answer, Site, options};

/// Sends `bytes` as they are and reads the first line of the answer; the rest is for those who look.
async fn raw(site: &Site, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(site.addr).await.unwrap();
    // The server may answer, and close, before it has read all of it.
    let _ = stream.write_all(bytes).await;
    let mut answer = vec![0; 4_096];
    let read = stream.read(&mut answer).await.unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// That it serves on.
async fn assert_well(site: &Site) {
    assert_eq!(site.job(r#"{"kind":"k","args":1}"#).await.status, StatusCode::ACCEPTED);
}

async fn gzip(bytes: &[u8], times: usize) -> Vec<u8> {
    let mut packer = GzipEncoder::new(Vec::new());
    for _ in 0..times {
        packer.write_all(bytes).await.unwrap();
    }
    packer.shutdown().await.unwrap();
    packer.into_inner()
}

async fn zstd(bytes: &[u8], times: usize) -> Vec<u8> {
    let mut packer = ZstdEncoder::new(Vec::new());
    for _ in 0..times {
        packer.write_all(bytes).await.unwrap();
    }
    packer.shutdown().await.unwrap();
    packer.into_inner()
}

#[tokio::test]
async fn a_size_bomb_is_refused_by_what_it_says_or_as_soon_as_it_is_too_much() {
    let site = Site::new(Puppet::new()).await;
    for path in ["/v1/jobs", "/v1/jobs/batch", "/v1/jobs/batch?atomic=true", "/jobs/add"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 10995116277760\r\n\r\n");
        let answer = raw(&site, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("problem:too-large"), "{path}: {answer}");
    }
    // Of no announced length: read no further than to the limit.
    let endless = || reqwest::Body::wrap_stream(stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 20]))));
    for path in ["/v1/jobs", "/v1/jobs/batch?atomic=true", "/jobs/add"] {
        let answer = Answer::of(site.post(path, "application/json", endless())).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, "too-large"), "{path}");
    }
    assert!(site.state.most_held_together() < 20 << 20, "{}", site.state.most_held_together());
    assert_well(&site).await;
}

#[tokio::test]
async fn a_decompression_bomb_is_cut_off() {
    let http = HttpOptions { body_limit: 64 << 20, ..HttpOptions::default() };
    let site = Site::with(Puppet::new(), options(), http).await;
    let zeros = vec![b'0'; 1 << 20];
    // 256 MiB in a few hundred KiB, or less.
    for (coding, bomb) in [("gzip", gzip(&zeros, 256).await), ("zstd", zstd(&zeros, 256).await)] {
        assert!(bomb.len() < 1 << 20);
        for (path, kind) in [
            ("/v1/jobs", "application/json"),
            ("/v1/jobs/batch", "application/x-ndjson"),
            ("/v1/jobs/batch?atomic=true", "application/json"),
        ] {
            let answer = Answer::of(site.post(path, kind, bomb.clone()).header("content-encoding", coding)).await;
            assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, "too-large"), "{coding} {path}");
        }
        // A bomb in a bomb is only once unpacked.
        let nested = if coding == "gzip" { gzip(&bomb, 1).await } else { zstd(&bomb, 1).await };
        let answer = Answer::of(site.post("/v1/jobs", "application/json", nested).header("content-encoding", coding)).await;
        assert!(answer.status.is_client_error(), "{answer:?}");
        let answer = Answer::of(site.post("/v1/jobs", "application/json", "no archive").header("content-encoding", coding)).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "broken-body"));
    }
    // A window larger than any decoder has to support: magic number, no checksum, window of 2 GiB.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
    let answer = Answer::of(site.post("/v1/jobs", "application/json", window.to_vec()).header("content-encoding", "zstd")).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "broken-body"));
    let answer = Answer::of(site.post("/v1/jobs", "application/json", "{}").header("content-encoding", "gzip, gzip")).await;
    assert_eq!(answer.code(), "unsupported-encoding");
    assert!(site.state.most_held_together() < 32 << 20, "{}", site.state.most_held_together());
    assert_well(&site).await;
}

#[tokio::test]
async fn what_is_nested_too_deeply_is_named() {
    let site = Site::new(Puppet::new()).await;
    let deep = |open: &str, close: &str, depth: usize| open.repeat(depth) + "1" + &close.repeat(depth);
    for args in [deep("[", "]", 100_000), deep("{\"a\":", "}", 40_000), "[".repeat(200_000)] {
        let answer = site.job(&format!(r#"{{"kind":"k","args":{args}}}"#)).await;
        // Well-formed, but more than is allowed, or not even that.
        assert!(matches!(answer.status.as_u16(), 400 | 413), "{answer:?}");
        assert_eq!(answer.code(), "invalid-job");
    }
    let good = r#"{"kind":"k","args":1}"#;
    let bad = format!(r#"{{"kind":"k","args":{}}}"#, deep("[", "]", 50_000));
    let answer = site.lines(format!("{good}\n{bad}\n{good}\n")).await;
    assert_eq!((answer.status, &answer.body["accepted"], &answer.body["rejected"]), (StatusCode::ACCEPTED, &json!(2), &json!(1)));
    let answer = Answer::of(site.post("/v1/jobs/batch", "application/json", "[".repeat(3_000_000))).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    let answer = Answer::of(site.post("/jobs/add", "application/json", deep("[", "]", 5_000))).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "invalid-job"));
    assert_well(&site).await;
}

#[tokio::test]
async fn what_is_no_text_is_no_job() {
    let site = Site::new(Puppet::new()).await;
    for body in [
        &b"\xff\xfe{\x00"[..],
        b"{\"kind\":\"k\xff\",\"args\":1}",
        b"{\"kind\":\"k\",\"args\":\"\xc3\x28\"}",
        b"\x00",
        b"\xef\xbb\xbf{}",
    ] {
        let answer = Answer::of(site.post("/v1/jobs", "application/json", body.to_vec())).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "invalid-job"), "{body:?}");
        let answer = site.lines(body.to_vec()).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNPROCESSABLE_ENTITY, "nothing-accepted"), "{body:?}");
    }
    for head in [
        &b"content-type: \xff\xfe"[..],
        b"content-encoding: \xff",
        b"idempotency-key: \xff",
        b"content-length: x",
        b"transfer-encoding: chunked, x",
    ] {
        let request =
            [b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n", head, b"\r\n\r\n{}"].concat();
        let answer = raw(&site, &request).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 415 "), "{head:?}: {answer}");
    }
    for nonsense in [
        &b"\x00\x01\x02\x03\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense that is no frame at all",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ] {
        let answer = raw(&site, nonsense).await;
        assert!(!answer.contains(" 200 ") && !answer.contains(" 202 "), "{answer}");
    }
    assert_well(&site).await;
}

#[tokio::test]
async fn a_flood_of_headers_is_refused() {
    let site = Site::new(Puppet::new()).await;
    let many: String = (0..2_000).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(2 << 20));
    for flood in [many, long] {
        let answer = raw(&site, format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{flood}\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{}", answer.lines().next().unwrap_or_default());
    }
    let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "p".repeat(100_000));
    let answer = raw(&site, path.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 414 ") || answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.len() < 4_096, "what came from outside is not shown back in full");
    assert_well(&site).await;
}

#[tokio::test]
async fn a_million_tiny_jobs_in_one_body_pass_in_little_memory() {
    let broker = Puppet::new();
    broker.discard();
    let site = Site::new(broker.clone()).await;
    const JOB: &str = "{\"kind\":\"k\",\"args\":1},";
    let pieces = (0..1_000).map(|_| Ok::<_, std::io::Error>(JOB.repeat(1_000)));
    let end = JOB.trim_end_matches(',').to_owned() + "]";
    let body = stream::iter(std::iter::once(Ok("[".to_owned())).chain(pieces).chain([Ok(end)]));
    let answer = Answer::of(site.post("/v1/jobs/batch", "application/json", reqwest::Body::wrap_stream(body))).await;
    assert_eq!((answer.status, &answer.body["accepted"]), (StatusCode::ACCEPTED, &json!(1_000_001)));
    assert!(answer.body["ids"].as_array().unwrap().len() < 1_000);
    assert!(site.state.most_held_together() < 2 << 20, "{}", site.state.most_held_together());
    assert!(site.producer.most_held() <= 5 << 20, "{}", site.producer.most_held());
    // A million that are none: the errors that are told have an end too.
    let answer = site.lines("x\n".repeat(1_000_000)).await;
    assert_eq!((answer.status, &answer.body["rejected"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!(1_000_000)));
    assert_eq!(answer.body["errors"].as_array().unwrap().len(), 1_000);
}

#[tokio::test]
async fn an_id_that_is_none_is_called_that() {
    let site = Site::new(Puppet::new()).await;
    let long = "A".repeat(7_000);
    let garbage = ["garbage", "01JDB6K3Q2M8X7Z9V4T5R6W1YC", "01JDB6K3Q2M8X7Z9V4T5R6W1YC-", "01JDB6K3Q2M8X7Z9V4T5R6W1YC--1"];
    let others = ["01JDB6K3Q2M8X7Z9V4T5R6W1YC-99999999999", "-0", "%00", "%F0%9F%92%A9", "wf.jobs.%3E", "..%2F..%2Fetc", &long];
    for id in garbage.into_iter().chain(others) {
        let answer = Answer::of(site.get(&format!("/v1/jobs/{id}"))).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "invalid-id"), "{id}");
        assert!(answer.body["detail"].as_str().unwrap().len() < 500, "{id}");
    }
    let answer = Answer::of(site.get("/v1/jobs/%FF")).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    let id = "01JDB6K3Q2M8X7Z9V4T5R6W1YC-0";
    for wait in ["?wait=x", "?wait=-1s", "?wait=99999999999999999999y", "?wait=1s&wait=2s", "?colour=red"] {
        let answer = Answer::of(site.get(&format!("/v1/jobs/{id}{wait}"))).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "invalid-request"), "{wait}");
    }
}

/// Sends a byte of a body every few milliseconds, until the server has enough: what it says, and after how long.
async fn drip(site: &Site) -> (String, Duration) {
    let began = Instant::now();
    let stream = TcpStream::connect(site.addr).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    write.write_all(b"POST /v1/jobs/batch HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n[").await.unwrap();
    let dripping = tokio::spawn(async move {
        while write.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = read.read_to_end(&mut answer).await;
    dripping.abort();
    (String::from_utf8_lossy(&answer).into_owned(), began.elapsed())
}

#[tokio::test]
async fn who_drips_is_cut() {
    // Never silent for long, but slower than it has to be.
    let idle = Duration::from_millis(300);
    let http = HttpOptions { idle_timeout: idle, body_pace: 10_000, ..HttpOptions::default() };
    let site = Site::with(Puppet::new(), options(), http).await;
    let (answer, took) = drip(&site).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("too slowly"), "{answer}");
    assert!(took >= idle);
    // Fast enough, but without an end.
    let total = Duration::from_millis(400);
    let http = HttpOptions { body_timeout: total, body_pace: 1, ..HttpOptions::default() };
    let site = Site::with(Puppet::new(), options(), http).await;
    let (answer, took) = drip(&site).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("did not come within"), "{answer}");
    assert!(took >= total);
    assert_well(&site).await;
}
