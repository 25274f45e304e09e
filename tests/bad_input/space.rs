//! A disk that runs full under a node: what its clients are told meanwhile.

use crate::process::{Home, Process, TOPIC};
use crate::records::{refused, sound};
use ackord::proto::native::ErrorCode;
use bytes::Bytes;
use kafka_protocol::ResponseError as Code;
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const GIB: u64 = 1 << 30;

/// Writes until the node takes records, or takes none, as is expected of it. The last error code.
async fn until(process: &mut Process, takes: bool) -> i16 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (code, offset) = process.produce(TOPIC, Bytes::from(sound())).await;
        if code == 0 {
            process.remember(offset, "a value");
        }
        if (code == 0) == takes {
            return code;
        }
        assert!(Instant::now() < deadline, "code {code} to the end");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full_for_now_and_loses_nothing() {
    let free = rustix::fs::statvfs(std::env::temp_dir()).map(|stat| stat.f_bavail * stat.f_frsize);
    let free = free.expect("the file system says its space");
    assert!(free > 6 * GIB, "this test fills 3 GiB of the disk, and {free} bytes are free");
    let mut process = Process::start_in(Home::with_reserve(free - 2 * GIB)).await;
    process.verify().await;

    let place = process.home.file().with_file_name("filler");
    let filler = File::create(&place).expect("a file");
    rustix::fs::fallocate(&filler, FallocateFlags::empty(), 0, 3 * GIB).expect("space for a while");
    let code = until(&mut process, false).await;
    let error = Code::try_from_code(code).expect("a known code");
    assert!(error.is_retriable() && !matches!(code, 7 | 20), "{error:?}: certainly not written, and only for now");
    let error = refused(&process, TOPIC, sound()).await;
    assert!(error.definite && error.retriable, "{error:?}");
    assert_eq!(ErrorCode::try_from(error.code), Ok(ErrorCode::Overloaded), "{error:?}");
    process.verify_reads().await;

    std::fs::remove_file(place).expect("the file goes");
    drop(filler);
    until(&mut process, true).await;
    process.verify().await;
    process.stop().await;
}
