//! What the wire format costs a job, beside what nothing could beat: copying the same bytes, compressing them, and
//! reading and writing the same jobs as JSON.
//!
//! Every number is for a batch of 1,000 jobs and given per job (criterion's `elem/s`).

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wf_schema::{
    Batch, BatchBuilder, BatchId, Format, Header, Job, Kind, Lane, Limits, Record, RecordBuilder, RecordHeader, RunId,
};

const JOBS: usize = 1_000;
const KINDS: [&str; 4] = ["math_add", "math_subtract", "math_multiply", "math_divide"];

/// The streams of jobs that the numbers are about, as JSON, a job each.
fn streams() -> [(&'static str, Vec<String>); 2] {
    let mut random = fastrand::Rng::with_seed(7);
    let counted = (0..JOBS).map(|n| job("math_add", n + 1_000_000, n % 100)).collect();
    let mixed = (0..JOBS).map(|_| job(KINDS[random.usize(..4)], random.usize(10..1000), random.usize(10..1000))).collect();
    [("seq", counted), ("random", mixed)]
}

fn job(kind: &str, a: usize, b: usize) -> String {
    format!(r#"{{"kind":"{kind}","args":{{"a":{a},"b":{b}}}}}"#)
}

fn header() -> Header {
    Header::new(BatchId::new(), Format::Json)
}

fn fill(jobs: &[Job<'_>]) -> BatchBuilder {
    let mut open = BatchBuilder::new(header());
    jobs.iter().for_each(|job| {
        open.push(job).unwrap();
    });
    open
}

fn batches(c: &mut Criterion) {
    let limits = Limits::default();
    let mut group = c.benchmark_group("batch");
    group.throughput(Throughput::Elements(JOBS as u64));
    for (stream, texts) in streams() {
        let jobs: Vec<_> = texts.iter().map(|text| Job::from_json(text.as_bytes(), &limits).unwrap()).collect();
        let open = fill(&jobs);
        let message = open.encode();
        eprintln!("batch/{stream}: {:.2} bytes a job on the wire, {:.2} raw", per_job(message.len()), per_job(open.raw_len()));
        group.bench_function(BenchmarkId::new("push", stream), |b| b.iter(|| fill(black_box(&jobs))));
        group.bench_function(BenchmarkId::new("encode", stream), |b| b.iter(|| black_box(&open).encode()));
        group.bench_function(BenchmarkId::new("decode", stream), |b| {
            b.iter(|| Batch::decode(black_box(&message), &limits).unwrap());
        });
        group.bench_function(BenchmarkId::new("decode and read", stream), |b| {
            b.iter(|| {
                let batch = Batch::decode(black_box(&message), &limits).unwrap();
                batch.iter().map(|job| job.args().len() + job.kind_slot() + job.policy().max_attempts as usize).sum::<usize>()
            });
        });
    }
    group.finish();
}

fn forms(c: &mut Criterion) {
    let limits = Limits::default();
    let mut group = c.benchmark_group("json");
    group.throughput(Throughput::Elements(JOBS as u64));
    for (stream, texts) in streams() {
        let lines = Bytes::from(texts.join("\n"));
        let array = Bytes::from(format!("[{}]", texts.join(",")));
        group.bench_function(BenchmarkId::new("job form", stream), |b| {
            b.iter(|| {
                texts.iter().map(|text| Job::from_json(black_box(text.as_bytes()), &limits).unwrap().args.len()).sum::<usize>()
            });
        });
        for (name, message) in [("message of lines", &lines), ("message of an array", &array)] {
            group.bench_function(BenchmarkId::new(name, stream), |b| {
                b.iter(|| Batch::from_json(black_box(message), &Lane::default(), header(), &limits).unwrap());
            });
        }
    }
    group.finish();
}

fn records(c: &mut Criterion) {
    let limits = Limits::default();
    let kind = Kind::new("math_add").unwrap();
    let build = |results: bool| {
        let mut record = RecordBuilder::new(RecordHeader {
            batch: BatchId::new(),
            run: RunId::new('j', 1),
            step: 0,
            writer: 1,
            executor: "bench".to_owned(),
            at: 1,
            lane: Lane::default(),
            format: Format::Json,
            cut: 1 << 18,
        });
        for n in 0..JOBS as u32 {
            let result = if results { format!("{}.0", n + 100) } else { String::new() };
            assert!(record.completed(n, 1, &kind, result.as_bytes()));
        }
        record
    };
    let mut group = c.benchmark_group("record");
    group.throughput(Throughput::Elements(JOBS as u64));
    for (name, record) in [("numbers", build(true)), ("no results", build(false))] {
        let message = record.encode();
        eprintln!("record/{name}: {:.3} bytes an outcome on the wire", per_job(message.len()));
        group.bench_function(BenchmarkId::new("encode", name), |b| b.iter(|| black_box(&record).encode()));
        group.bench_function(BenchmarkId::new("decode", name), |b| {
            b.iter(|| Record::decode(black_box(&message), &limits).unwrap());
        });
    }
    group.finish();
}

/// The least that a stranger's job takes: no policy, no limits, no ids.
#[derive(Serialize, Deserialize)]
struct Bare<'a> {
    kind: &'a str,
    #[serde(borrow)]
    args: &'a RawValue,
}

fn ceilings(c: &mut Criterion) {
    let mut group = c.benchmark_group("ceiling");
    group.throughput(Throughput::Elements(JOBS as u64));
    for (stream, texts) in streams() {
        let bare: Vec<Bare<'_>> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        let args: Vec<u8> = bare.iter().flat_map(|job| job.args.get().bytes()).collect();
        let packed = lz4_flex::block::compress(&args);
        let array = serde_json::to_vec(&bare).unwrap();
        let mut space = vec![0; lz4_flex::block::get_maximum_output_size(args.len())];
        group.bench_function(BenchmarkId::new("memcpy of the args", stream), |b| b.iter(|| black_box(&args).clone()));
        group.bench_function(BenchmarkId::new("lz4 of the args", stream), |b| {
            b.iter(|| lz4_flex::block::compress_into(black_box(&args), &mut space).unwrap());
        });
        group.bench_function(BenchmarkId::new("lz4 of the args, back", stream), |b| {
            b.iter(|| lz4_flex::block::decompress_into(black_box(&packed), &mut space).unwrap());
        });
        group.bench_function(BenchmarkId::new("serde_json, write", stream), |b| {
            b.iter(|| serde_json::to_vec(black_box(&bare)).unwrap());
        });
        group.bench_function(BenchmarkId::new("serde_json, read", stream), |b| {
            b.iter(|| serde_json::from_slice::<Vec<Bare<'_>>>(black_box(&array)).unwrap());
        });
    }
    group.finish();
}

fn per_job(bytes: usize) -> f64 {
    bytes as f64 / JOBS as f64
}

criterion_group!(codec, batches, forms, records, ceilings);
criterion_main!(codec);
