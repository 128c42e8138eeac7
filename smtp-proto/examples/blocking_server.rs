//! An SMTP server without a runtime: the session machine on blocking sockets, one client after the other.
//!
//! `cargo run -p postwright-smtp-proto --example blocking_server`, then talk to 127.0.0.1:2525.
#![allow(clippy::print_stdout, reason = "it shows what comes in")]

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use postwright_core::{Clock as _, Domain, EnhancedStatus, Refusal, SystemClock};
use postwright_smtp_proto::server::{Answer, Config, Peer, Question, Session, Step};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new("mx.example.org".parse::<Domain>()?);
    for stream in TcpListener::bind("127.0.0.1:2525")?.incoming() {
        println!("session ended: {:?}", serve(&mut stream?, config.clone()));
    }
    Ok(())
}

fn serve(stream: &mut TcpStream, config: Config) -> io::Result<()> {
    let clock = SystemClock::new();
    let peer = Peer::new(stream.peer_addr()?, stream.local_addr()?, clock.now());
    let mut session = Session::new(config.into(), peer, clock.mono());
    let (mut space, mut body) = ([0; 4096], Vec::new());
    loop {
        match session.poll() {
            Step::Read { deadline } => {
                stream.set_read_timeout(Some(deadline.since(clock.mono())))?;
                match stream.read(&mut space) {
                    Ok(0) => session.handle_eof(),
                    Ok(len) => session.handle_input(&space[..len], clock.mono()),
                    Err(late) if late.kind() == ErrorKind::WouldBlock => session.handle_timeout(clock.mono()),
                    Err(error) => return Err(error),
                }
            }
            Step::Write { bytes, .. } => {
                let len = stream.write(bytes)?;
                session.handle_written(len, clock.mono());
            }
            Step::Body(piece) => body.extend_from_slice(piece),
            Step::Reset => body.clear(),
            Step::Ask(id) => {
                let answer = match session.question() {
                    Some((_, Question::Message { envelope, .. })) => {
                        println!("{envelope:?}\n{}", String::from_utf8_lossy(&std::mem::take(&mut body)));
                        Answer::accepted()
                    }
                    Some((_, Question::Command { .. })) => {
                        Refusal::known(500, EnhancedStatus::known(5, 5, 1), "Unknown").into()
                    }
                    _ => Answer::accepted(),
                };
                session.answer(id, answer);
            }
            Step::StartTls { .. } | Step::Close(_) => return Ok(()),
        }
    }
}
