//! The floor: Postfix's own load generator into its own sink, without an MTA between them, beside our load into our
//! sink. What others measure with shows whether what we measure with is the limit.
//!
//! Invariant: both sides keep their connections open and send one command at a time. What was started is stopped.
//!
//! Not here: our load and sink (load.rs, sink.rs).

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use postwright::core::{Clock, SystemClock};

use super::load::Load;
use crate::commands::Failure;

/// How long the sink may take to listen, in steps of [`STEP`].
const STEPS: u32 = 200;
const STEP: Duration = Duration::from_millis(20);
/// How exactly the end of the load is seen.
const LOOK: Duration = Duration::from_millis(2);

struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait().map(drop));
    }
}

/// How long `smtp-source` takes to bring the load into `smtp-sink`.
pub(super) async fn postfix(load: Load, patience: Duration) -> Result<Duration, Failure> {
    // A port that was free a moment ago: the sink cannot choose one.
    let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let address = address.map_err(Failure::new)?;
    let mut sink = Command::new("smtp-sink");
    // Started by root it wants to be told whom to run as.
    sink.args(["-u", "root", &address.to_string(), "1024"]);
    let _sink = spawned(&mut sink)?;
    listening(address).await?;
    let mut source = Command::new("smtp-source");
    source.args(["-d", "-f", "load@bench.example", "-t", "sink@bench.example"]);
    for (option, value) in [("-s", load.connections), ("-m", load.messages), ("-l", load.size)] {
        source.arg(option).arg(value.to_string());
    }
    let clock = SystemClock::new();
    let start = clock.mono();
    let mut source = spawned(source.arg(address.to_string()))?;
    loop {
        let spent = clock.mono().since(start);
        match source.0.try_wait().map_err(Failure::new)? {
            Some(status) if status.success() => return Ok(spent),
            Some(status) => return Err(Failure::new(format!("smtp-source failed ({status})"))),
            None if spent > patience => {
                return Err(Failure::new(format!("smtp-source was not done after {patience:?}")));
            }
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

fn spawned(command: &mut Command) -> Result<Stopped, Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.map(Stopped).map_err(|error| Failure::new(format!("{program}: {error}; it comes with Postfix")))
}

async fn listening(address: SocketAddr) -> Result<(), Failure> {
    for _ in 0..STEPS {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        tokio::time::sleep(STEP).await;
    }
    Err(Failure::new("smtp-sink did not listen within four seconds"))
}
