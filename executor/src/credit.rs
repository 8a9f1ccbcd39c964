//! How much to fetch ahead, and for which lane. Pure: it counts, and says what to grant.
//!
//! As little as keeps the node busy, for a batch that waits here is one that an idle node cannot run: what the free
//! slots can start at once, and what the lane starts while word goes to the broker and back, twice, at the pace that
//! was measured. So a node far away fetches far ahead, and one with slow jobs next to its broker hardly at all.
//!
//! Two budgets are never exceeded, bytes (memory) and work. Lanes share them by weight, six to three to one within a
//! queue. A quarter of a lane's share is kept free for it whatever the others do, and a lane with nothing at all may
//! always have one message. A lane is granted more only as it draws on what it has, so an idle lane does not sit on
//! the budget.

mod pace;

use std::time::Duration;

use self::pace::Pace;

/// The place of a lane in [`Credit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneId(usize);

/// What a lane may fetch in addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// How far a delivered message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody has looked into it.
    Unopened,
    /// Its jobs are known, and not all have started.
    Opened,
    /// The rest of its jobs will have started before another message can come.
    Ending,
    /// All its jobs have started, or never will.
    Started,
}

/// The budget of a node.
#[derive(Debug)]
pub(crate) struct Credit {
    bytes: f64,
    /// In seconds of one slot.
    work: f64,
    slots: f64,
    /// A round trip to the broker.
    distance: Duration,
    lanes: Vec<Account>,
}

/// The messages a lane may have ahead before anything is known about it.
const FIRST_WINDOW: usize = 4;
/// The most messages a lane may have ahead: a bound for brokers, far above what bytes and work allow.
const MAX_WINDOW: usize = 8_192;
/// How many round trips are covered: one that is under way, and one in stock.
const ROUND_TRIPS: f64 = 2.0;
/// The least that a round trip is taken for: on a busy machine it takes so long until everybody had a turn.
const SHORTEST: Duration = Duration::from_millis(10);
/// How many grants a window is given out in: grants are requests on the wire.
const CHUNKS: usize = 4;
/// The part of its share that is kept for a lane.
const FLOOR: f64 = 0.25;
/// How quickly the averages follow.
const FOLLOW: f64 = 0.2;
/// What a message is taken for until one was seen, in bytes.
const FIRST_SIZE: f64 = 32.0 * 1024.0;
/// What a message may measure beyond the average before it holds up those behind it: a part of it, and bytes.
const SLACK: (f64, f64) = (1.5, 1024.0);

#[derive(Debug)]
struct Account {
    weight: f64,
    /// Granted and not delivered. Bytes may be overdrawn.
    messages: usize,
    bytes: f64,
    /// Delivered and not all started, without those that nearly are; of these, not looked into.
    waiting: usize,
    unopened: usize,
    /// Delivered and nearly all started.
    ending: usize,
    /// Delivered and not settled.
    owned: usize,
    owned_bytes: f64,
    pace: Pace,
    /// Averages of a message: its size in bytes; its jobs, and its work in seconds of one slot, once known.
    size: f64,
    jobs: Option<f64>,
    cost: Option<f64>,
}

impl Account {
    fn used_bytes(&self) -> f64 {
        self.owned_bytes + self.bytes.max(0.0)
    }

    /// What runs already does not count: it is being worked off, and its slots are for others when it is done.
    fn used_work(&self) -> f64 {
        self.ahead() as f64 * self.cost.unwrap_or(0.0)
    }

    fn ahead(&self) -> usize {
        self.waiting + self.messages
    }

    fn is_starting(&self) -> bool {
        self.waiting + self.ending > 0
    }
}

impl Credit {
    /// A budget of `bytes`, and of `work` with all of `slots` busy, for a broker that is next door until
    /// [`Credit::set_distance`] says otherwise.
    pub(crate) fn new(bytes: usize, work: Duration, slots: usize) -> Self {
        let (bytes, slots) = (bytes as f64, slots as f64);
        Self { bytes, work: work.as_secs_f64() * slots, slots, distance: Duration::ZERO, lanes: Vec::new() }
    }

    /// From now on the budget is of `bytes`.
    pub(crate) fn set_bytes(&mut self, bytes: usize) {
        self.bytes = bytes as f64;
    }

    /// A round trip to the broker takes this long.
    pub(crate) fn set_distance(&mut self, distance: Duration) {
        self.distance = distance;
    }

    /// One more lane to share the budget.
    pub(crate) fn add(&mut self, weight: u32) -> LaneId {
        self.lanes.push(Account {
            weight: f64::from(weight.max(1)),
            messages: 0,
            bytes: 0.0,
            waiting: 0,
            unopened: 0,
            ending: 0,
            owned: 0,
            owned_bytes: 0.0,
            pace: Pace::default(),
            size: FIRST_SIZE,
            jobs: None,
            cost: None,
        });
        LaneId(self.lanes.len() - 1)
    }

    /// A message of `bytes` came at `at`.
    pub(crate) fn delivered(&mut self, lane: LaneId, bytes: usize, at: Duration) {
        let account = &mut self.lanes[lane.0];
        if !account.is_starting() {
            account.pace.begins(at);
        }
        account.messages = account.messages.saturating_sub(1);
        account.bytes -= bytes as f64;
        account.waiting += 1;
        account.unopened += 1;
        account.owned += 1;
        account.owned_bytes += bytes as f64;
        account.size += (bytes as f64 - account.size) * FOLLOW;
    }

    /// A message was looked into, and has so many jobs to run.
    pub(crate) fn opened(&mut self, lane: LaneId, jobs: usize) {
        let account = &mut self.lanes[lane.0];
        account.unopened = account.unopened.saturating_sub(1);
        let jobs = jobs.max(1) as f64;
        account.jobs = Some(account.jobs.map_or(jobs, |average| average + (jobs - average) * FOLLOW));
    }

    /// Whether the `unstarted` jobs of an opened message will have started by the time that another message can come.
    /// `paced` is how long that takes by what the message itself has shown, if it has.
    pub(crate) fn is_ending(&self, lane: LaneId, unstarted: usize, paced: Option<Duration>) -> bool {
        let account = &self.lanes[lane.0];
        let usual = account.cost.zip(account.jobs).map(|(cost, jobs)| cost / jobs * unstarted as f64 / self.slots);
        let rest = paced.map(|paced| paced.as_secs_f64()).into_iter().chain(usual).reduce(f64::max);
        rest.is_some_and(|rest| rest <= self.round_trip().as_secs_f64())
    }

    /// The rest of an opened message is about to start.
    pub(crate) fn ending(&mut self, lane: LaneId) {
        let account = &mut self.lanes[lane.0];
        account.waiting = account.waiting.saturating_sub(1);
        account.ending += 1;
    }

    /// All jobs of a message that had come to `stage` have started (or never will), at `at`.
    pub(crate) fn started(&mut self, lane: LaneId, stage: Stage, at: Duration) {
        self.leave(lane, stage);
        self.lanes[lane.0].pace.started(at);
    }

    /// A message of `bytes` that had come to `stage` is settled or given up. If jobs of it ran, they took `busy` in all.
    pub(crate) fn finished(&mut self, lane: LaneId, stage: Stage, bytes: usize, busy: Option<Duration>) {
        self.leave(lane, stage);
        let account = &mut self.lanes[lane.0];
        account.owned = account.owned.saturating_sub(1);
        account.owned_bytes = (account.owned_bytes - bytes as f64).max(0.0);
        if let Some(busy) = busy {
            let busy = busy.as_secs_f64();
            account.cost = Some(account.cost.map_or(busy, |cost| cost + (busy - cost) * FOLLOW));
        }
    }

    /// A message leaves `stage`.
    fn leave(&mut self, lane: LaneId, stage: Stage) {
        let account = &mut self.lanes[lane.0];
        let leave = |count: &mut usize| *count = count.saturating_sub(1);
        match stage {
            Stage::Unopened => {
                leave(&mut account.unopened);
                leave(&mut account.waiting);
            }
            Stage::Opened => leave(&mut account.waiting),
            Stage::Ending => leave(&mut account.ending),
            Stage::Started => {}
        }
    }

    /// What was granted to the lane and not used is taken back.
    pub(crate) fn withdraw(&mut self, lane: LaneId) {
        let account = &mut self.lanes[lane.0];
        (account.messages, account.bytes) = (0, account.bytes.min(0.0));
    }

    /// Whether the lane has credit for more messages than came.
    pub(crate) fn asks(&self, lane: LaneId) -> bool {
        let account = &self.lanes[lane.0];
        account.messages > 0 && account.bytes > 0.0
    }

    /// How long `jobs` of `busy` each take with all slots at work.
    pub(crate) fn estimate(&self, jobs: usize, busy: Duration) -> Duration {
        busy.mul_f64(jobs as f64 / self.slots)
    }

    /// How long a message of the lane keeps the node at work, if that is known.
    pub(crate) fn message_time(&self, lane: LaneId, at: Duration) -> Option<Duration> {
        let account = &self.lanes[lane.0];
        // One that computes takes a core, of which there are fewer than slots; but then it is slow to start.
        let pace = account.pace.at(at, account.is_starting());
        let start = if pace > 0.0 { 1.0 / pace } else { 0.0 };
        account.cost.map(|cost| Duration::from_secs_f64((cost / self.slots).max(start)))
    }

    /// What can be granted at `at`, the lane that has least of its share first, when `free` slots have no job that is
    /// known of. It counts as granted from then on.
    pub(crate) fn grants(&mut self, free: usize, at: Duration) -> Vec<(LaneId, Grant)> {
        let mut order: Vec<usize> = (0..self.lanes.len()).collect();
        let share = |lane: &Account| lane.used_bytes() / lane.weight;
        order.sort_by(|a, b| share(&self.lanes[*a]).total_cmp(&share(&self.lanes[*b])));
        // Some are spoken for by what is here and was not looked into.
        let spoken: f64 = self.lanes.iter().map(|lane| lane.unopened as f64 * lane.jobs.unwrap_or(1.0)).sum();
        let free = (free as f64 - spoken).max(0.0);
        order.into_iter().filter_map(|lane| self.grant(lane, free, at).map(|grant| (LaneId(lane), grant))).collect()
    }

    fn grant(&mut self, lane: usize, free: f64, at: Duration) -> Option<Grant> {
        let (free_bytes, free_work) =
            (self.free(lane, self.bytes, Account::used_bytes), self.free(lane, self.work, Account::used_work));
        let window = self.window(lane, free, at);
        let account = &mut self.lanes[lane];
        let ahead = account.ahead();
        let by_work = match account.cost {
            Some(cost) if cost > 0.0 => (free_work / cost) as usize,
            Some(_) => MAX_WINDOW,
            None => FIRST_WINDOW.saturating_sub(ahead),
        };
        let size = account.size.max(1.0);
        let wanted = window.saturating_sub(ahead).min(by_work).min((free_bytes / size) as usize);
        let floor = usize::from(ahead == 0);
        let messages = wanted.max(floor);

        // Few more are worth a request only when few are left; and a lane whose bytes are overdrawn is stuck without.
        let chunk = (window / CHUNKS).max(1);
        let stuck = account.messages > 0 && account.bytes <= 0.0;
        if (messages == 0 || (messages < chunk && account.messages >= chunk)) && !stuck {
            return None;
        }
        let target = (account.messages + messages) as f64 * (size * SLACK.0 + SLACK.1);
        let overdrawn = (-account.bytes).max(0.0);
        let starved = account.bytes <= 0.0 && (ahead == 0 || account.owned == 0);
        let at_least = if starved { overdrawn + size } else { 0.0 };
        // Whole bytes, rounded down: a fraction too many would let one more message through, however large.
        let bytes = (target - account.bytes).min(free_bytes + overdrawn).max(at_least).floor();
        if account.bytes + bytes < 1.0 {
            return None;
        }
        account.messages += messages;
        account.bytes += bytes;
        Some(Grant { messages, bytes: bytes as usize })
    }

    /// How many messages the lane is to have ahead.
    fn window(&self, lane: usize, free: f64, at: Duration) -> usize {
        let account = &self.lanes[lane];
        let fill = match account.jobs {
            _ if free < 1.0 => 0.0,
            Some(jobs) => (free / jobs).ceil(),
            None => FIRST_WINDOW as f64 - 1.0,
        };
        // However many can be started: no more are worked off than the slots can.
        let most = account.cost.filter(|cost| *cost > 0.0).map_or(f64::INFINITY, |cost| self.slots / cost);
        let pace = account.pace.at(at, account.is_starting()).min(most);
        let under_way = (ROUND_TRIPS * self.round_trip().as_secs_f64() * pace).ceil();
        ((fill + under_way.max(1.0)) as usize).min(MAX_WINDOW)
    }

    /// How long to reckon with until a message comes that is asked for now.
    fn round_trip(&self) -> Duration {
        self.distance.max(SHORTEST)
    }

    /// What is left of `budget` for the lane, with every other lane's floor kept free.
    fn free(&self, lane: usize, budget: f64, used: fn(&Account) -> f64) -> f64 {
        let weights: f64 = self.lanes.iter().map(|lane| lane.weight).sum();
        let taken = |(n, account): (usize, &Account)| {
            let floor = if n == lane { 0.0 } else { budget * FLOOR * account.weight / weights };
            used(account).max(floor)
        };
        (budget - self.lanes.iter().enumerate().map(taken).sum::<f64>()).max(0.0)
    }
}

#[cfg(test)]
mod tests;
