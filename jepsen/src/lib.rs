//! Ackord under faults that are real: processes that die, disks that lose what was not synced.
//!
//! * [`damage`]: damage to a node's files.
//! * [`process`]: a cluster of real `ackord serve` processes.
//! * [`power`]: disks whose power can be cut.
//! * [`client`], [`producer`], [`reader`]: Kafka clients that hide nothing, and write down exactly what they know.
//! * [`history`]: what they did and saw.
//! * [`check`]: what that says against the contract. It knows nothing of the server.
//! * [`load`]: producers and readers of a whole topic, from a start to an end.
//! * [`workload`]: a load, and faults; one file for each.
//! * [`report`]: what came of it.
//!
//! Nothing here is deterministic; that is the simulator's part. What is here needs no trust in the simulator's disk,
//! network or clock.

pub mod check;
pub mod client;
pub mod damage;
pub mod history;
pub mod load;
pub mod power;
pub mod process;
pub mod producer;
pub mod reader;
pub mod report;
pub mod workload;
