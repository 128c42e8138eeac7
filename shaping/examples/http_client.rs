//! Shaping something that is not mail: a client of an HTTP service that allows 20 requests a second in bursts of
//! 5 and two connections at a time, and answers 429 when it is busy.
#![allow(clippy::print_stdout, reason = "this is what an example shows")]

use postwright_core::{Clock, SystemClock};
use postwright_shaping::{
    Admission, Ask, Bound, Kind, Layer, MemoryTokenStore, Path, Policy, Shaper, Signal,
};
use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// One request on a connection of its own; the status line of the answer.
fn get(server: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// A service that is busy every tenth time.
fn serve() -> Result<String, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for (n, mut stream) in listener.incoming().flatten().enumerate() {
            let status = if n % 10 == 9 { "429 Too Many Requests" } else { "200 OK" };
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        }
    });
    Ok(address)
}

fn main() -> Result<(), Box<dyn Error>> {
    let (server, clock) = (serve()?, SystemClock::new());
    let limits = Layer::defaults()
        .set(Kind::Messages, &[Bound::Rate("20/s burst 5".parse()?)])?
        .set(Kind::Concurrency, &[Bound::AtMost(2)])?;
    let shaper = Shaper::new(Policy::new().with(limits), Arc::new(MemoryTokenStore::new()));
    let path = Path::to("api.example.com".parse()?);
    for n in 0..30 {
        let _permit = loop {
            match shaper.admit(&path, Ask::first_message(0), clock.now()) {
                Admission::Granted(permit) => break permit,
                Admission::Later(later) => {
                    println!("{n}: {}", later.because);
                    std::thread::park_timeout(later.until.since(clock.now()));
                }
            }
        };
        let status = get(&server)?;
        let busy = status.contains("429");
        shaper.observe(&path, if busy { Signal::Throttled } else { Signal::Delivered }, &status, clock.now());
    }
    Ok(())
}
