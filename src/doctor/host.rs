//! This machine's network settings, where the system tells them.

use std::path::Path;

/// Network settings of this machine; each is `None` where the system does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HostFacts {
    /// How TCP reacts to loss: `cubic`, `bbr`.
    pub(super) congestion_control: Option<String>,
    /// What a connection's receive buffer may grow to, in bytes.
    pub(super) receive_buffer: Option<u64>,
    /// What its send buffer may grow to, in bytes.
    pub(super) send_buffer: Option<u64>,
    /// Whether a connection that was idle starts anew.
    pub(super) slow_start_after_idle: Option<bool>,
}

impl HostFacts {
    /// Reads them from `/proc/sys/net`, which only Linux has.
    pub(super) fn read() -> Self {
        Self::below(Path::new("/proc/sys/net/ipv4"))
    }

    fn below(folder: &Path) -> Self {
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned());
        // The least, the first and the most.
        let most = |name: &str| text(name)?.split_ascii_whitespace().nth(2)?.parse().ok();
        Self {
            congestion_control: text("tcp_congestion_control").filter(|name| !name.is_empty()),
            receive_buffer: most("tcp_rmem"),
            send_buffer: most("tcp_wmem"),
            slow_start_after_idle: text("tcp_slow_start_after_idle").map(|text| text != "0"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_does_not_tell_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(HostFacts::below(dir.path()), HostFacts::default());
        std::fs::write(dir.path().join("tcp_rmem"), "4096\t131072\t6291456\n").unwrap();
        std::fs::write(dir.path().join("tcp_wmem"), "nonsense\n").unwrap();
        std::fs::write(dir.path().join("tcp_congestion_control"), "bbr\n").unwrap();
        std::fs::write(dir.path().join("tcp_slow_start_after_idle"), "0\n").unwrap();
        let expected = HostFacts {
            congestion_control: Some("bbr".into()),
            receive_buffer: Some(6_291_456),
            send_buffer: None,
            slow_start_after_idle: Some(false),
        };
        assert_eq!(HostFacts::below(dir.path()), expected);
    }
}
