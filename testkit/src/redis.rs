//! A private redis-server on a Unix socket, in a folder of its own with a short name.
//!
//! Invariant: nothing outside its temporary folder is touched, nothing is kept, and it ends with the value.
//!
//! Not here: talking to it (whoever tests a store brings a client).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::peers;

/// A server of our own.
pub struct Server {
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Server {
    /// Starts one that answers already. `None` where there is no redis-server.
    ///
    /// # Panics
    /// If it is there and cannot be started.
    pub fn start() -> Option<Server> {
        peers::find("redis-server")?;
        // Sockets have short paths only.
        let folder = tempfile::Builder::new().prefix("pw").tempdir_in("/tmp").expect("a folder");
        let mut server = Server { folder, process: None };
        server.run();
        Some(server)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// Its folder, for what a test puts beside the socket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it again after [`Server::kill`]; what it knew is gone.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run(&mut self) {
        let mut command = peers::command("redis-server").expect("it was there");
        command.args([
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
            "--unixsocket",
        ]);
        command.arg(self.socket()).current_dir(self.folder.path());
        let mut process =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("redis-server starts");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        self.process = Some(process);
        let mut lines = output.lines().map_while(Result::ok);
        let answers = |line: String| line.to_lowercase().contains("ready to accept connections");
        assert!(lines.any(answers), "redis-server ended instead of listening");
        // Keeps reading, so that the server never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
    }

    /// Ends it like a power cut.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
