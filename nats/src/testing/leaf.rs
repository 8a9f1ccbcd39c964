//! A hub and a leaf node of a test's own.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
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
        both.linked(hub.in_domain());
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

    /// Waits until the leaf node has reached the hub, and the JetStream of the hub's `domain` answers there.
    fn linked(&self, domain: Option<&str>) {
        let began = Instant::now();
        let linked = || self.leaf.log().contains("Leafnode connection created");
        // What the hub listens for is known at the leaf node only a moment after the link stands.
        while !linked() || domain.is_some_and(|domain| !answers(self.leaf.address(), domain)) {
            assert!(began.elapsed() < PATIENCE, "the leaf node does not reach its hub; it says:\n{}", self.leaf.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Whether the server at `address` leads to the JetStream of `domain`.
fn answers(address: SocketAddr, domain: &str) -> bool {
    let asked = format!(
        "CONNECT {{\"verbose\":false,\"headers\":true,\"no_responders\":true}}\r\nSUB a 1\r\nPUB $JS.{domain}.API.INFO a 0\r\n\r\n"
    );
    let mut link = TcpStream::connect(address).unwrap();
    link.set_read_timeout(Some(PATIENCE)).unwrap();
    link.write_all(asked.as_bytes()).unwrap();
    let mut said = Vec::new();
    loop {
        let mut more = [0; 4_096];
        let read = link.read(&mut more).unwrap();
        assert!(read > 0, "the leaf node closed the connection");
        said.extend(&more[..read]);
        let text = String::from_utf8_lossy(&said);
        // That nobody is there comes with headers, an answer without.
        if text.contains("HMSG a ") {
            return false;
        }
        if text.contains("MSG a ") {
            return true;
        }
    }
}

fn remote(hub: SocketAddr) -> String {
    format!("server_name: leaf\nleafnodes {{ reconnect: 1\n remotes: [ {{ url: \"nats-leaf://{hub}\" }} ] }}")
}
