//! A private PostgreSQL server: own folder, own socket, a free port on loopback.
//!
//! Invariant: nothing outside its temporary folder is touched, and it ends with the value.
//!
//! Not here: talking to it (whoever tests a spool brings a client).

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::peers;

/// A server of our own; it refuses to run as root, so then it runs as nobody.
pub struct Server {
    directory: tempfile::TempDir,
    programs: PathBuf,
    process: Option<Child>,
    address: SocketAddr,
}

const NOBODY: u32 = 65_534;

/// The only user, who may do everything.
pub const USER: &str = "postwright";
/// The database.
pub const DATABASE: &str = "postgres";

impl Server {
    /// Makes and starts one; it answers a moment later. `None` where PostgreSQL is not installed.
    ///
    /// # Panics
    /// If it is there and cannot be started.
    pub fn start() -> Option<Server> {
        let programs = peers::find("initdb")?.canonicalize().ok()?.parent()?.to_owned();
        // Sockets have short paths only.
        let directory = tempfile::Builder::new().prefix("pw").tempdir_in("/tmp").expect("a folder");
        if peers::is_root() {
            std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("its owner");
        }
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let address = free.expect("a free port");
        let mut server = Server { directory, programs, process: None, address };
        let mut initdb = server.command("initdb");
        initdb
            .args(["-A", "trust", "-U", USER, "-E", "UTF8", "--no-locale", "-N", "-D"])
            .arg(server.socket_folder());
        let made = initdb.stdout(Stdio::null()).status().expect("initdb runs");
        assert!(made.success(), "initdb: {made}");
        server.run();
        Some(server)
    }

    /// Where its socket is; clients take it for the host.
    pub fn socket_folder(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where it listens on loopback.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One value as `psql` prints it; the empty text if the server does not answer.
    pub fn ask(&self, sql: &str) -> String {
        let mut psql = self.command("psql");
        psql.args(["-U", USER, "-d", DATABASE, "-h"]).arg(self.socket_folder());
        psql.args(["-p", &self.address.port().to_string(), "-tAc", sql]).stderr(Stdio::null());
        let output = psql.output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).trim().to_owned()
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = Command::new(if peers::is_root() { Path::new("setpriv") } else { &program });
        if peers::is_root() {
            let id = NOBODY.to_string();
            command
                .args([&format!("--reuid={id}"), &format!("--regid={id}"), "--clear-groups", "--"])
                .arg(program);
        }
        command.current_dir(self.directory.path());
        command
    }

    /// Starts it again after [`Server::kill`].
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run(&mut self) {
        let mut postgres = self.command("postgres");
        postgres.arg("-D").arg(self.socket_folder());
        postgres.args(["-h", "127.0.0.1", "-p", &self.address.port().to_string()]);
        postgres.args(["-c", "unix_socket_directories=.", "-c", "max_connections=60"]);
        postgres.current_dir(self.socket_folder());
        let started = postgres.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.process = Some(started.expect("postgres starts"));
    }

    /// Ends it like a power cut: when this returns, nobody answers any more and it can be [run](Server::run) again.
    ///
    /// # Panics
    /// If its children outlive it by half a minute.
    #[expect(clippy::disallowed_methods, reason = "a test waits for processes, with an end")]
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let children = children(process.id());
        let _ = process.kill();
        let _ = process.wait();
        // Those of a killed server end by themselves when they find it gone, and answer until then.
        for _ in 0..3_000 {
            if children.iter().all(|child| is_gone(child)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("children of the killed PostgreSQL are still there");
    }
}

/// The processes that this one started.
fn children(parent: u32) -> Vec<String> {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    list.split_whitespace().map(str::to_owned).collect()
}

/// Whether a process is no more, or only its name is left until somebody asks how it ended.
fn is_gone(process: &str) -> bool {
    std::fs::read(format!("/proc/{process}/cmdline")).map_or(true, |line| line.is_empty())
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
