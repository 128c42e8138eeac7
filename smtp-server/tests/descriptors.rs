//! Want of file descriptors: accepting slows down, is counted, and goes on by itself.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::time::Duration;

use postwright_testkit::descriptors;
use support::{Mode, settings, start};
use tokio::net::TcpStream;

#[test]
fn accepting_survives_want_of_descriptors() {
    descriptors::run_with_few("in_a_process_with_few_descriptors");
}

/// Does nothing unless the other test runs it.
#[tokio::test]
async fn in_a_process_with_few_descriptors() {
    if !descriptors::are_few() {
        return;
    }
    let bed = start(settings(), Mode::Accept).await;
    // Each connection takes two descriptors of this process; when connecting fails too, accepting has failed.
    let mut held = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(bed.address)).await
    {
        held.push(stream);
        assert!(held.len() < 100, "the limit does not hold");
    }
    support::eventually(|| async { (bed.counters.accept_errors() > 0).then_some(()) }).await;
    // Backing off: not one error for each turn of a loop.
    let before = bed.counters.accept_errors();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let errors = bed.counters.accept_errors() - before;
    assert!(errors < 100, "{errors} errors in half a second: it spins");
    drop(held);
    let mut client = support::eventually(|| async { TcpStream::connect(bed.address).await.ok() }).await;
    let mut greeting = [0; 4];
    tokio::io::AsyncReadExt::read_exact(&mut client, &mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 ");
    println!("{}", descriptors::DONE);
    drop(client);
    bed.stop().await;
}
