//! The `ackord-jepsen` program: whole workloads, as long as one likes.
fn main() {}
