//! How much one message may hold.

/// What a reader of messages is willing to hold in memory for one of them. Checked before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The size of a message's body once it is decompressed, in bytes.
    pub raw_bytes: usize,
    /// The jobs, or outcomes, in a message.
    pub jobs: usize,
    /// The args of one job, in bytes.
    pub args_bytes: usize,
}

impl Limits {
    /// The most distinct kinds, and the most distinct policies, in one batch: an index into their table is a byte.
    pub const TABLE: usize = 256;
    /// The most past failures a job carries along; older ones are forgotten first.
    pub const HISTORY: usize = 10;
    /// The most bytes that a job's past failures take on the wire.
    pub const HISTORY_BYTES: usize = 32 * 1024;
    /// The longest trace context, in bytes.
    pub const TRACE: usize = 256;
}

impl Default for Limits {
    /// 16 MiB of body, 65,536 jobs, 256 KiB of args.
    fn default() -> Self {
        Self { raw_bytes: 16 << 20, jobs: 1 << 16, args_bytes: 256 << 10 }
    }
}
