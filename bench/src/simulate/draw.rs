//! Drawing a history from a seed.

use fastrand::Rng;

use super::history::{Fault, History, Mishap, Op, Place, Role, Setting, Spec, Step, What};

/// How long work comes in and faults happen, in ms.
const ACTIVE: u32 = 20_000;

impl History {
    /// The history of `seed`.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut draw = Draw { rng: Rng::with_seed(seed ^ 0x5741_5246), steps: Vec::new() };
        let mut setting = draw.setting();
        match draw.rng.u8(..32) {
            // Each point in turn, or some would be met once in ten thousand histories.
            _ if seed % 3 == 2 => draw.point(&mut setting, (seed / 3) as usize),
            0 => draw.flood(&mut setting),
            1..=2 => draw.sharing(&mut setting),
            // A file, resumed late.
            3..=9 => draw.files(&mut setting),
            // Keys, repeated late.
            10..=15 => draw.keyed(),
            _ => draw.mixed(),
        }
        // Where quick jobs are timed, nothing else may hold them up.
        if setting.quick_ms.is_none() && seed % 3 < 2 {
            draw.faults();
        }
        let mut steps = draw.steps;
        steps.sort_by_key(|step| step.at);
        Self { seed, setting, steps }
    }
}

struct Draw {
    rng: Rng,
    steps: Vec<Step>,
}

impl Draw {
    fn setting(&mut self) -> Setting {
        let rng = &mut self.rng;
        Setting {
            ingests: rng.u8(1..=2),
            executors: rng.u8(1..=3),
            queues: 3,
            spool: rng.bool(),
            slots: rng.u8(1..=8),
            turns: rng.u8(1..=2),
            lease_ms: *pick(rng, &[6_000, 6_000, 9_000]),
            dedup_ms: *pick(rng, &[24_000, 24_000, 120_000]),
            latency_ms: *pick(rng, &[1, 1, 5, 40]),
            timeout_ms: *pick(rng, &[2_000, 5_000]),
            message_bytes: *pick(rng, &[1 << 20, 1 << 20, 16 << 10]),
            lane_messages: *pick(rng, &[1_000, 1_000, 12]),
            copies: *pick(rng, &[100_000, 100_000, 8]),
            batch_jobs: rng.u32(1..=6),
            quick_ms: None,
        }
    }

    fn add(&mut self, at: u32, what: What) {
        let number = self.steps.len() as u32;
        self.steps.push(Step { at, number, what });
    }

    fn spec(&mut self, place: Place) -> Spec {
        let rng = &mut self.rng;
        let quick = place.queue == Place::QUICK;
        let ms = match rng.u8(..10) {
            _ if quick => rng.u32(..50),
            0..=4 => 0,
            5..=7 => rng.u32(1..500),
            8 => rng.u32(500..4_000),
            _ => rng.u32(4_000..15_000),
        };
        let fails = if rng.u8(..5) == 0 { rng.u8(1..4) } else { 0 };
        Spec {
            place,
            ms,
            fails,
            attempts: rng.u8(1..6),
            permanent: fails > 0 && rng.u8(..4) == 0,
            store: rng.u8(..3) == 0,
            kills: 0,
            delay_s: if rng.u8(..12) == 0 { rng.u8(1..8) } else { 0 },
            size: if rng.u8(..10) == 0 { rng.u32(500..6_000) } else { 0 },
        }
    }

    fn place(&mut self) -> Place {
        Place { queue: self.rng.u8(..3), priority: self.rng.u8(..3) }
    }

    fn specs(&mut self, most: usize) -> Vec<Spec> {
        let place = self.place();
        let mixed = self.rng.u8(..3) == 0;
        (0..self.rng.usize(1..=most))
            .map(|_| {
                let place = if mixed { self.place() } else { place };
                self.spec(place)
            })
            .collect()
    }

    fn mixed(&mut self) {
        for _ in 0..self.rng.u32(3..14) {
            let at = self.rng.u32(..ACTIVE);
            let what = match self.rng.u8(..10) {
                0 => What::Raw { place: self.place(), jobs: self.specs(4) },
                1 => What::Run { jobs: self.specs(12), kills: self.kills() },
                2..=3 => self.post(true),
                _ => self.post(false),
            };
            self.add(at, what);
        }
        if self.rng.u8(..12) == 0 {
            let place = Place { queue: 0, priority: 1 };
            let poison = Spec { kills: self.rng.u8(1..=8), fails: 0, delay_s: 0, ..self.spec(place) };
            let mut jobs = vec![poison];
            for _ in 0..self.rng.u8(..4) {
                jobs.push(self.spec(place));
            }
            let at = self.rng.u32(..ACTIVE / 2);
            self.add(at, What::Post { ingest: 0, key: false, jobs, again: Vec::new() });
        }
    }

    fn post(&mut self, key: bool) -> What {
        let again = if key { (0..self.rng.u8(1..4)).map(|_| self.pause()).collect() } else { Vec::new() };
        let most = if self.rng.u8(..4) == 0 { 12 } else { 3 };
        What::Post { ingest: self.rng.u8(..2), key, jobs: self.specs(most), again }
    }

    fn kills(&mut self) -> Vec<(u32, u32)> {
        (0..self.rng.u8(..3)).map(|_| (self.rng.u32(1..6_000), self.pause())).collect()
    }

    /// How long somebody waits before trying again: mostly not long; sometimes until everything is forgotten.
    fn pause(&mut self) -> u32 {
        if self.rng.bool() { self.rng.u32(100..8_000) } else { self.rng.u32(20_000..45_000) }
    }

    fn keyed(&mut self) {
        for _ in 0..self.rng.u32(2..6) {
            let (at, what) = (self.rng.u32(..ACTIVE), self.post(true));
            self.add(at, what);
        }
        // Whoever repeats a request of which nobody knows the end looks for its jobs.
        let op = *pick(&mut self.rng, &[Op::Publish, Op::Publish, Op::PublishAll, Op::Update]);
        let mishaps = [Mishap::CrashBefore, Mishap::CrashAfter, Mishap::LoseAnswer, Mishap::LoseRequest];
        let (what, then) = (*pick(&mut self.rng, &mishaps), *pick(&mut self.rng, &mishaps));
        self.add(0, What::Fault(Fault::Op { role: Role::Ingest, op, nth: 1, what }));
        if self.rng.bool() {
            self.add(0, What::Fault(Fault::Op { role: Role::Ingest, op: Op::Trace, nth: 1, what: then }));
        }
    }

    fn files(&mut self, setting: &mut Setting) {
        if self.rng.bool() {
            setting.message_bytes = 16 << 10;
            setting.batch_jobs = self.rng.u32(4..20);
        }
        if self.rng.bool() {
            setting.lane_messages = self.rng.u32(1..6);
        }
        let place = self.place();
        let large = self.rng.bool();
        let jobs = (0..self.rng.u32(2..30)).map(|_| {
            let spec = self.spec(place);
            Spec { size: if large { self.rng.u32(500..4_000) } else { spec.size }, delay_s: 0, ..spec }
        });
        let jobs = jobs.collect();
        let mut kills = self.kills();
        if kills.is_empty() {
            kills.push((self.rng.u32(1..4_000), self.pause()));
        }
        let at = self.rng.u32(..2_000);
        self.add(at, What::Run { jobs, kills });
        for _ in 0..self.rng.u32(..4) {
            let (at, what) = (self.rng.u32(..ACTIVE), self.post(false));
            self.add(at, what);
        }
    }

    /// Many batches of slow jobs in lanes of their own that all come back at once, and a quick one that does, too. Slots go
    /// in turn from lane to lane, so it waits for a job or two of theirs, and for nothing else.
    fn flood(&mut self, setting: &mut Setting) {
        (setting.executors, setting.turns, setting.slots, setting.queues) = (1, 1, 16, 11);
        (setting.latency_ms, setting.lane_messages, setting.quick_ms) = (1, 1_000, Some(13_000));
        let mut at = 0;
        for _ in 0..self.rng.u32(4..6) {
            for lane in 0..24 {
                let place = Place { queue: 3 + lane / 3, priority: lane % 3 };
                let job = Spec { ms: self.rng.u32(3_900..4_000), fails: 0, delay_s: 0, size: 0, ..self.spec(place) };
                self.add(at, What::Raw { place, jobs: vec![job] });
                at += 1;
            }
        }
        let place = Place { queue: Place::QUICK, priority: 0 };
        let job = Spec { ms: self.rng.u32(..50), fails: 0, delay_s: 0, size: 0, ..self.spec(place) };
        self.add(at, What::Raw { place, jobs: vec![job] });
        let at = at + self.rng.u32(20..300);
        self.add(at, What::Fault(Fault::Kill { role: Role::Executor, node: 0, back_ms: 100 }));
        let down_ms = self.rng.u32(200..500);
        self.add(at + 50, What::Fault(Fault::Restart { down_ms, acks_ms: 0, ids: false, counts: false, leases: true }));
    }

    /// Nodes that have nothing to do beside one that has too much, and lanes without room for what it gives away.
    fn sharing(&mut self, setting: &mut Setting) {
        (setting.executors, setting.slots) = (self.rng.u8(2..=3), 1);
        setting.lane_messages = self.rng.u32(1..=3);
        let place = Place { queue: 0, priority: self.rng.u8(..3) };
        for _ in 0..self.rng.u32(1..4) {
            let jobs = (0..self.rng.u32(4..16))
                .map(|_| Spec { ms: self.rng.u32(200..3_000), fails: 0, delay_s: 0, ..self.spec(place) })
                .collect();
            let at = self.rng.u32(..6_000);
            self.add(at, What::Post { ingest: 0, key: false, jobs, again: Vec::new() });
        }
        for _ in 0..self.rng.u32(1..4) {
            let (at, ms) = (self.rng.u32(..8_000), self.rng.u32(200..4_000));
            self.add(at, What::Fault(Fault::Full { place, ms }));
        }
        let op = *pick(&mut self.rng, &[Op::PublishAt, Op::PublishAt, Op::Publish, Op::Append]);
        let fault = Fault::Op { role: Role::Executor, op, nth: self.rng.u8(1..4), what: Mishap::CrashAfter };
        self.add(0, What::Fault(fault));
    }

    /// A bit of everything, and a node that is gone at one point.
    fn point(&mut self, setting: &mut Setting, number: usize) {
        let (role, op) = POINTS[(number / 2) % POINTS.len()];
        let what = if number.is_multiple_of(2) { Mishap::CrashBefore } else { Mishap::CrashAfter };
        (setting.spool, setting.executors, setting.slots) = (true, self.rng.u8(1..=2), self.rng.u8(1..=2));
        let place = Place { queue: 0, priority: self.rng.u8(..3) };
        let job = Spec { ms: 300, fails: 0, attempts: 3, delay_s: 0, size: 0, ..self.spec(place) };
        let later = Spec { delay_s: 2, ..job.clone() };
        let dies = Spec { fails: 3, attempts: 2, ..job.clone() };
        let elsewhere = Spec { place: Place { queue: 1, priority: 0 }, ..job.clone() };
        let post = |jobs: &[&Spec], again: &[u32]| What::Post {
            ingest: 0,
            key: !again.is_empty(),
            jobs: jobs.iter().map(|job| (*job).clone()).collect(),
            again: again.to_vec(),
        };
        let kills = if op == Op::Trace { vec![(1_500, 500)] } else { Vec::new() };
        let jobs = vec![job.clone(), later.clone(), dies.clone(), elsewhere.clone()];
        let at = self.rng.u32(..500);
        self.add(at, What::Run { jobs, kills });
        for n in 0..self.rng.u32(6..10) {
            let at = n * 1_200 + self.rng.u32(..1_000);
            let what = match n % 4 {
                0 => post(&[&job, &elsewhere], &[400, 3_000]),
                1 => post(&[&job, &later, &dies], &[]),
                2 => post(&[&job; 4], &[]),
                _ => post(&[&later], &[2_000]),
            };
            self.add(at, what);
        }
        let at = self.rng.u32(1_000..5_000);
        self.add(at, What::Fault(Fault::Full { place, ms: 1_500 }));
        let at = self.rng.u32(2_000..6_000);
        self.add(at, What::Fault(Fault::Restart { down_ms: 4_000, acks_ms: 0, ids: true, counts: false, leases: true }));
        let at = self.rng.u32(6_000..11_000);
        self.add(at, What::Fault(Fault::Drain { node: 0, deadline_ms: 0, back_ms: 500 }));
        if (role, op) == (Role::Ingest, Op::Trace) {
            self.add(0, What::Fault(Fault::Op { role, op: Op::Publish, nth: 1, what: Mishap::CrashAfter }));
        }
        let nth = if self.rng.bool() { 1 } else { self.rng.u8(1..4) };
        self.add(0, What::Fault(Fault::Op { role, op, nth, what }));
    }

    fn faults(&mut self) {
        let count = match self.rng.u8(..8) {
            0 => 0,
            1..=3 => self.rng.u32(1..3),
            _ => self.rng.u32(2..8),
        };
        for _ in 0..count {
            let at = self.rng.u32(..ACTIVE);
            let (at, fault) = self.fault(at);
            self.add(at, What::Fault(fault));
        }
    }

    fn fault(&mut self, at: u32) -> (u32, Fault) {
        let rng = &mut self.rng;
        let role = *pick(rng, &[Role::Ingest, Role::Executor, Role::Executor]);
        let node = rng.u8(..3);
        let fault = match rng.u8(..32) {
            0..=1 => Fault::Kill { role, node, back_ms: rng.u32(100..6_000) },
            2..=3 => Fault::Drain { node, deadline_ms: *pick(rng, &[0, 500, 5_000]), back_ms: rng.u32(100..3_000) },
            4..=5 => {
                let role = *pick(rng, &[Role::Ingest, Role::Executor, Role::Run]);
                Fault::Cut { role, node, ms: *pick(rng, &[300, 2_000, 8_000, 20_000]) }
            }
            6..=7 => Fault::Restart {
                down_ms: *pick(rng, &[50, 500, 4_000]),
                acks_ms: *pick(rng, &[0, 200, 1_000]),
                ids: rng.bool(),
                counts: rng.u8(..4) == 0,
                leases: rng.bool(),
            },
            8 => Fault::Rollback { ms: rng.u32(200..6_000) },
            9 => Fault::Full { place: Place { queue: rng.u8(..3), priority: rng.u8(..3) }, ms: rng.u32(500..8_000) },
            10 => Fault::Lag { lag_ms: rng.u32(50..2_000), ms: rng.u32(500..8_000) },
            11 => Fault::Evict { left: rng.u8(..3) },
            12 => Fault::Reorder { ms: rng.u32(500..8_000) },
            13 => Fault::Repeat { count: rng.u8(1..4) },
            14 => Fault::Clock { role, node, ms: *pick(rng, &[-3_600_000, -900, 900, 3_600_000]) },
            15 => Fault::DiskFull { node, ms: rng.u32(500..5_000) },
            _ => {
                let (role, op) = *pick(rng, POINTS);
                let what = match rng.u8(..5) {
                    0 => Mishap::LoseRequest,
                    1 => Mishap::LoseAnswer,
                    2 => Mishap::CrashBefore,
                    3 => Mishap::CrashAfter,
                    _ => Mishap::Slow(rng.u16(50..4_000)),
                };
                // From the start, mostly: so that small numbers find something.
                let at = if rng.u8(..3) > 0 { 0 } else { at };
                let nth = if rng.bool() { rng.u8(1..4) } else { rng.u8(1..16) };
                return (at, Fault::Op { role, op, nth, what });
            }
        };
        (at, fault)
    }
}

/// Where requests are lost, and nodes are.
pub(crate) const POINTS: &[(Role, Op)] = &[
    (Role::Ingest, Op::Publish),
    (Role::Ingest, Op::Publish),
    (Role::Ingest, Op::PublishAll),
    (Role::Ingest, Op::PublishAt),
    (Role::Ingest, Op::Create),
    (Role::Ingest, Op::Update),
    (Role::Ingest, Op::Get),
    (Role::Ingest, Op::Trace),
    (Role::Ingest, Op::Disk),
    (Role::Ingest, Op::Disk),
    (Role::Executor, Op::Append),
    (Role::Executor, Op::Append),
    (Role::Executor, Op::Publish),
    (Role::Executor, Op::PublishAt),
    (Role::Executor, Op::ReadRun),
    (Role::Executor, Op::Copy),
    (Role::Executor, Op::Copy),
    (Role::Executor, Op::End),
    (Role::Executor, Op::Bury),
    (Role::Executor, Op::Deliver),
    (Role::Executor, Op::Ack),
    (Role::Executor, Op::Ack),
    (Role::Executor, Op::Release),
    (Role::Executor, Op::Renew),
    (Role::Run, Op::Create),
    (Role::Run, Op::Update),
    (Role::Run, Op::Update),
    (Role::Run, Op::Publish),
    (Role::Run, Op::PublishAt),
    (Role::Run, Op::Read),
    (Role::Run, Op::Trace),
    (Role::Run, Op::Append),
    (Role::Run, Op::Ack),
    (Role::Run, Op::Results),
    (Role::Run, Op::Delete),
];

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}
