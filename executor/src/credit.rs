//! How much to fetch ahead, and for which lane. Pure: it counts, and says what to grant.
//!
//! One budget a node, in two measures: bytes (memory) and work (so that batches do not wait here while other nodes
//! idle). Lanes share it by weight, six to three to one within a queue. A quarter of a lane's share is kept free for
//! it whatever the others do, and a lane with nothing at all may always have one message. A lane is granted more only
//! as it draws on what it has, so an idle lane does not sit on the budget.

use std::time::Duration;

/// The place of a lane in [`Credit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneId(usize);

/// What a lane may fetch in addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// The budget of a node.
#[derive(Debug)]
pub(crate) struct Credit {
    bytes: f64,
    /// In seconds of one slot.
    work: f64,
    slots: f64,
    lanes: Vec<Account>,
}

/// The messages a lane may have on their way before anything is known about it.
const FIRST_WINDOW: usize = 4;
/// The most messages a lane may have on their way: a bound for brokers, far above what bytes and work allow.
const MAX_WINDOW: usize = 8_192;
/// How many grants a window is given out in: grants are requests on the wire.
const CHUNKS: usize = 4;
/// The part of its share that is kept for a lane.
const FLOOR: f64 = 0.25;
/// How quickly the averages follow.
const FOLLOW: f64 = 0.2;
/// What a message is taken for until one was seen, in bytes.
const FIRST_SIZE: f64 = 32.0 * 1024.0;

#[derive(Debug)]
struct Account {
    weight: f64,
    /// Granted and not delivered. Bytes may be overdrawn.
    messages: usize,
    bytes: f64,
    /// Delivered and not all started.
    waiting: usize,
    /// Delivered and not settled.
    owned: usize,
    owned_bytes: f64,
    /// How many messages it may have on their way: doubled each time that many were drawn.
    window: usize,
    drawn: usize,
    /// Averages of a message: its size in bytes, its work in seconds of one slot, once known.
    size: f64,
    cost: Option<f64>,
}

impl Account {
    fn used_bytes(&self) -> f64 {
        self.owned_bytes + self.bytes.max(0.0)
    }

    /// What runs already does not count: it is being worked off, and its slots are for others when it is done.
    fn used_work(&self) -> f64 {
        (self.waiting + self.messages) as f64 * self.cost.unwrap_or(0.0)
    }
}

impl Credit {
    /// A budget of `bytes`, and of `work` with all of `slots` busy.
    pub(crate) fn new(bytes: usize, work: Duration, slots: usize) -> Self {
        Self { bytes: bytes as f64, work: work.as_secs_f64() * slots as f64, slots: slots as f64, lanes: Vec::new() }
    }

    /// Another budget of bytes. What is used of the one before stays used.
    pub(crate) fn resize(&mut self, bytes: usize) {
        self.bytes = bytes as f64;
    }

    /// One more lane to share the budget.
    pub(crate) fn add(&mut self, weight: u32) -> LaneId {
        self.lanes.push(Account {
            weight: f64::from(weight.max(1)),
            messages: 0,
            bytes: 0.0,
            waiting: 0,
            owned: 0,
            owned_bytes: 0.0,
            window: FIRST_WINDOW,
            drawn: 0,
            size: FIRST_SIZE,
            cost: None,
        });
        LaneId(self.lanes.len() - 1)
    }

    /// A message of `bytes` came.
    pub(crate) fn delivered(&mut self, lane: LaneId, bytes: usize) {
        let account = &mut self.lanes[lane.0];
        account.messages = account.messages.saturating_sub(1);
        account.bytes -= bytes as f64;
        account.waiting += 1;
        account.owned += 1;
        account.owned_bytes += bytes as f64;
        account.size += (bytes as f64 - account.size) * FOLLOW;
        account.drawn += 1;
        if account.drawn >= account.window {
            account.drawn = 0;
            account.window = (account.window * 2).min(MAX_WINDOW);
        }
    }

    /// All jobs of a message have started (or never will).
    pub(crate) fn started(&mut self, lane: LaneId) {
        let account = &mut self.lanes[lane.0];
        account.waiting = account.waiting.saturating_sub(1);
    }

    /// A message of `bytes` is settled or given up. If jobs of it ran, they took `busy` in all.
    pub(crate) fn finished(&mut self, lane: LaneId, bytes: usize, busy: Option<Duration>) {
        let account = &mut self.lanes[lane.0];
        account.owned = account.owned.saturating_sub(1);
        account.owned_bytes = (account.owned_bytes - bytes as f64).max(0.0);
        if let Some(busy) = busy {
            let busy = busy.as_secs_f64();
            account.cost = Some(account.cost.map_or(busy, |cost| cost + (busy - cost) * FOLLOW));
        }
    }

    /// How long `jobs` of `busy` each take with all slots at work.
    pub(crate) fn estimate(&self, jobs: usize, busy: Duration) -> Duration {
        busy.mul_f64(jobs as f64 / self.slots)
    }

    /// What can be granted now, the lane that has least of its share first. It counts as granted from then on.
    pub(crate) fn grants(&mut self) -> Vec<(LaneId, Grant)> {
        let mut order: Vec<usize> = (0..self.lanes.len()).collect();
        let share = |lane: &Account| lane.used_bytes() / lane.weight;
        order.sort_by(|a, b| share(&self.lanes[*a]).total_cmp(&share(&self.lanes[*b])));
        order.into_iter().filter_map(|at| self.grant(at).map(|grant| (LaneId(at), grant))).collect()
    }

    fn grant(&mut self, at: usize) -> Option<Grant> {
        let (free_bytes, free_work) =
            (self.free(at, self.bytes, Account::used_bytes), self.free(at, self.work, Account::used_work));
        let account = &mut self.lanes[at];
        let ahead = account.waiting + account.messages;
        let by_work = match account.cost {
            Some(cost) if cost > 0.0 => (free_work / cost) as usize,
            Some(_) => MAX_WINDOW,
            None => FIRST_WINDOW.saturating_sub(ahead),
        };
        let size = account.size.max(1.0);
        let wanted = account.window.saturating_sub(account.messages).min(by_work).min((free_bytes / size) as usize);
        let floor = usize::from(ahead == 0);
        let messages = wanted.max(floor);

        // Few more are worth a request only when few are left; and a lane whose bytes are overdrawn is stuck without.
        let chunk = (account.window / CHUNKS).max(1);
        let stuck = account.messages > 0 && account.bytes <= 0.0;
        if (messages == 0 || (messages < chunk && account.messages >= chunk)) && !stuck {
            return None;
        }
        let target = (account.messages + messages) as f64 * size;
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

    /// What is left of `budget` for the lane `at`, with every other lane's floor kept free.
    fn free(&self, at: usize, budget: f64, used: fn(&Account) -> f64) -> f64 {
        let weights: f64 = self.lanes.iter().map(|lane| lane.weight).sum();
        let taken = |(n, lane): (usize, &Account)| {
            let floor = if n == at { 0.0 } else { budget * FLOOR * lane.weight / weights };
            used(lane).max(floor)
        };
        (budget - self.lanes.iter().enumerate().map(taken).sum::<f64>()).max(0.0)
    }
}

#[cfg(test)]
mod tests;
