//! Turns `proto/*.proto` into Rust. protox compiles them, so no machine needs protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/ackord.proto", "proto/peer.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    // Every bytes field is a slice of the frame it came in, not a copy.
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
