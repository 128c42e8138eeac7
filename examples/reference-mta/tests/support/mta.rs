//! `postwright serve` as a child process that can be killed and started again on the same spool.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

pub struct Mta {
    child: Child,
    pub address: SocketAddr,
    /// Where it listens beside that, in the order of the file.
    more: mpsc::Receiver<SocketAddr>,
}

impl Mta {
    /// Starts `serve` with a smart host on a free port and waits until it listens.
    pub fn start(spool: &Path, smart_host: SocketAddr, more: &[&str]) -> Mta {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postwright"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--hostname", "mta.test"])
            .args(["--smart-host", &smart_host.to_string(), "--spool"])
            .arg(spool)
            .args(more);
        Mta::spawn(command)
    }

    /// Starts `serve` with a configuration file.
    pub fn with_config(file: &Path) -> Mta {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postwright"));
        command.args(["serve", "--config"]).arg(file);
        Mta::spawn(command)
    }

    /// Starts `serve` with a configuration file, and has it log everything to another.
    pub fn logging(file: &Path, log: &Path) -> Mta {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postwright"));
        command.args(["serve", "--config"]).arg(file).env("RUST_LOG", "trace");
        command.stderr(std::fs::File::create(log).unwrap());
        let (child, address) = Mta::begin(command);
        let first = address.recv_timeout(Duration::from_secs(30)).unwrap();
        Mta { child, address: first, more: address }
    }

    /// Starts `serve` with a configuration file; if it ends instead of listening, its status and its complaint.
    pub fn try_with_config(file: &Path) -> Result<Mta, (ExitStatus, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postwright"));
        command.args(["serve", "--config"]).arg(file);
        let complaint = tempfile::NamedTempFile::new().unwrap();
        command.stderr(complaint.reopen().unwrap());
        let (mut child, address) = Mta::begin(command);
        match address.recv_timeout(Duration::from_secs(30)) {
            Ok(first) => Ok(Mta { child, address: first, more: address }),
            Err(_) => {
                // Its output is closed, or it hangs: killing it tells by the status.
                let _ = child.kill();
                let status = child.wait().unwrap();
                Err((status, std::fs::read_to_string(complaint.path()).unwrap()))
            }
        }
    }

    /// Starts any command that ends up as `serve`, and waits until it listens.
    pub fn spawn(mut command: Command) -> Mta {
        command.stderr(Stdio::inherit());
        Mta::spawn_quietly(command)
    }

    /// The same with the standard error that the command has.
    pub fn spawn_quietly(command: Command) -> Mta {
        let (mut child, address) = Mta::begin(command);
        match address.recv_timeout(Duration::from_secs(30)) {
            Ok(first) => Mta { child, address: first, more: address },
            Err(_) => {
                let _ = child.kill();
                panic!("the MTA did not print `listening on ADDRESS` within 30 s: {:?}", child.wait());
            }
        }
    }

    /// The child, and where its address will come; the sender is dropped when the child's output ends.
    fn begin(mut command: Command) -> (Child, mpsc::Receiver<SocketAddr>) {
        if !command.get_envs().any(|(name, _)| name == "RUST_LOG") {
            command.env("RUST_LOG", "error");
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (found, address) = mpsc::channel();
        // The thread ends with the child, whose end closes the pipe.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening on ") {
                    let _ = found.send(address.trim().parse::<SocketAddr>().unwrap());
                }
            }
        });
        (child, address)
    }

    /// The address of the next listener, beside the first.
    pub fn next_address(&self) -> SocketAddr {
        self.more.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// `kill -9`, where the value is still needed for its place.
    pub fn kill_now(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for it to end by itself.
    pub fn has_died(mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        super::wait_until("the MTA has died", limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// SIGTERM, and the exit status once it has drained.
    pub fn terminate(mut self, limit: Duration) -> ExitStatus {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let mut status = None;
        super::wait_until("the MTA has drained", limit, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Mta {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
