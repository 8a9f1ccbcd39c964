//! A hub and a leaf node of a test's own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{ServerOptions, TestServer};

/// How long the leaf node may take to reach its hub.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, the hub, and another that is its leaf node. Killed when dropped.
///
/// What starts or stops a server blocks for as long as that takes, some tenths of a second.
pub struct TestLeaf {
    hub: TestServer,
    leaf: TestServer,
}

impl TestLeaf {
    /// Starts both, and waits until the leaf node has reached the hub.
    pub fn start(hub: ServerOptions, leaf: ServerOptions) -> Self {
        let listening = |address: &str| {
            let lines = format!("server_name: hub\nleafnodes {{ listen: \"{address}\" }}");
            hub.clone().config(&lines)
        };
        let mut started = TestServer::start(listening("127.0.0.1:-1"));
        let address = started.leaf_address();
        // The same over restarts.
        started.reconfigure(listening(&address.to_string()));
        let leaf = TestServer::start(leaf.config(&remote(address)));
        let both = Self { hub: started, leaf };
        both.linked();
        both
    }

    /// The hub.
    pub fn hub(&self) -> &TestServer {
        &self.hub
    }

    /// The hub, to be stopped and started.
    pub fn hub_mut(&mut self) -> &mut TestServer {
        &mut self.hub
    }

    /// The leaf node.
    pub fn leaf(&self) -> &TestServer {
        &self.leaf
    }

    fn linked(&self) {
        let began = Instant::now();
        while !self.leaf.log().contains("Leafnode connection created") {
            assert!(began.elapsed() < PATIENCE, "the leaf node does not reach its hub; it says:\n{}", self.leaf.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn remote(hub: SocketAddr) -> String {
    format!("server_name: leaf\nleafnodes {{ reconnect: 1\n remotes: [ {{ url: \"nats-leaf://{hub}\" }} ] }}")
}
