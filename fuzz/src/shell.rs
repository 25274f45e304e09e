//! What the edges' targets stand on: a broker in memory with something in it, and a future that is polled and not
//! waited for.

use crate::fake_broker::FakeBroker;
use ackord::broker::{Broker, ConnectionId, PartitionIndex, Produce};
use ackord::record::writer::BatchWriter;
use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// The node's budget of requests.
pub const MEMORY_BYTES: u32 = 200 << 20;

/// Who asks.
pub const CONNECTION: ConnectionId = ConnectionId(7);

thread_local! {
    /// Timers need a runtime around them; nothing runs in it beside the future.
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(Builder::new_current_thread().enable_time().build().expect("a runtime without threads"));
}

/// Polls once. What is not ready then waits for records or for time, and is dropped as a client's departure drops it.
pub fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    RUNTIME.with_borrow(|runtime| {
        runtime.block_on(async {
            let mut future = pin!(future);
            let polled = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
            match polled {
                Poll::Ready(value) => Some(value),
                Poll::Pending => None,
            }
        })
    })
}

/// A broker with topics `orders` and `a`, and three records in the first partition of each.
pub fn broker() -> FakeBroker {
    let broker = FakeBroker::new();
    for topic in ["orders", "a"] {
        broker.add_topic(topic, 2);
        let writer = (0..3).fold(BatchWriter::new(1_000), |writer, _| writer.record(Some(b"k"), Some(b"v"), 1_000));
        let produce = Produce {
            connection: CONNECTION,
            topic: topic.into(),
            partition: PartitionIndex(0),
            records: writer.finish().into_bytes(),
            timeout: Duration::from_secs(1),
        };
        let admitted = poll_once(broker.produce(produce)).expect("no gate is closed").expect("a sound batch");
        poll_once(admitted).expect("no gate is closed").expect("a sound batch");
    }
    broker
}
