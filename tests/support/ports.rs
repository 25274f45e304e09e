//! Ports for nodes that are started, stopped and started again.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which the kernel takes ports for outgoing connections: a node that is started again must find
/// its port free.
const PORTS: std::ops::Range<u32> = 20_000..32_000;

/// A port on which nobody listens, and that this process is given only once: its tests start nodes side by side.
pub fn free_port(host: Ipv4Addr) -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97); // processes that run side by side begin in different places
    let next = || first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32 + PORTS.start;
    let ports = std::iter::repeat_with(|| u16::try_from(next()).expect("ports have 16 bits")).take(PORTS.len());
    let mut free = ports.filter(|port| TcpListener::bind((host, *port)).is_ok());
    free.next().expect("a free port")
}
