//! The systems under load: this program as `serve`, and Postfix. Each in a process and a temporary folder of its own,
//! with its durability switched on.
//!
//! Invariant: what was started is stopped when it is dropped.
//!
//! Not here: the figures (mod.rs).

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;
use tempfile::TempDir;

use super::postfix_services::services;
use crate::commands::Failure;

/// How long a system may take to greet, in steps of [`STEP`].
const STEPS: u32 = 200;
const STEP: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    #[value(skip)]
    Postwright,
    Postfix,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Postwright => "postwright",
            Kind::Postfix => "postfix",
        }
    }
}

/// A system that takes mail, and passes it on to the sink if it is told where that is.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) pid: u32,
    _stop: Stop,
    _folder: TempDir,
}

enum Stop {
    Child(Child),
    Postfix(PathBuf),
}

impl Running {
    /// `connections`: how many the system may open to the sink.
    pub(super) async fn start(
        kind: Kind,
        parent: &Path,
        sink: Option<SocketAddr>,
        connections: usize,
    ) -> Result<Running, Failure> {
        let folder = tempfile::Builder::new().prefix("postwright-bench").tempdir_in(parent);
        let folder =
            folder.map_err(|error| Failure::new(format!("no folder in {}: {error}", parent.display())))?;
        match kind {
            Kind::Postwright => postwright(folder, sink, connections).await,
            Kind::Postfix => postfix(folder, sink, connections).await,
        }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        match self {
            // The books are closed: nothing is lost that anybody waits for.
            Stop::Child(child) => drop(child.kill().and_then(|()| child.wait())),
            Stop::Postfix(configuration) => drop(control(configuration, "stop")),
        }
    }
}

async fn postwright(
    folder: TempDir,
    sink: Option<SocketAddr>,
    connections: usize,
) -> Result<Running, Failure> {
    // Without a sink nothing is delivered; the option then only fills a place.
    let smart_host = sink.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 25)));
    let text = format!(
        "hostname = \"postwright.example\"\n[spool]\npath = {:?}\n[[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"relay\"\n\
         [delivery]\nsmart_host = \"{smart_host}\"\nconnections = {connections}\nconnections_per_site = {connections}\n\
         [limits]\nconnections_per_ip = 1000\n",
        folder.path().join("spool"),
    );
    let file = folder.path().join("postwright.toml");
    fs::write(&file, text).map_err(Failure::new)?;
    let program = std::env::current_exe().map_err(Failure::new)?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--config").arg(&file);
    if sink.is_none() {
        command.arg("--accept-only");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| Failure::new(format!("serve: {error}")))?;
    let (pid, out) = (child.id(), child.stdout.take());
    let stop = Stop::Child(child);
    // The reader ends with the child at the latest, and that with `stop`.
    let reader = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        out.map(|out| BufReader::new(out).read_line(&mut line)).transpose().map(|_| line)
    });
    let line = tokio::time::timeout(STEP * STEPS, reader)
        .await
        .map_err(|_| Failure::new("serve did not listen within ten seconds; run it by hand to see why"))?;
    let line = line.map_err(Failure::new)?.map_err(Failure::new)?;
    let address = line.trim_end().strip_prefix("listening on ").and_then(|address| address.parse().ok());
    let address = address.ok_or_else(|| {
        Failure::new(format!("serve said {line:?} instead of where it listens; run it by hand to see why"))
    })?;
    Ok(Running { address, pid, _stop: stop, _folder: folder })
}

async fn postfix(folder: TempDir, sink: Option<SocketAddr>, connections: usize) -> Result<Running, Failure> {
    let here = folder.path();
    for part in ["conf", "queue", "data"] {
        fs::create_dir(here.join(part)).map_err(Failure::new)?;
    }
    open_to_all(here)?;
    run(Command::new("chown").arg("postfix").arg(here.join("data")))?;
    let configuration = here.join("conf");
    let socket = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let address = socket.map_err(Failure::new)?;
    let after = match sink {
        Some(sink) => format!("relayhost = [{}]:{}\n", sink.ip(), sink.port()),
        // Taken and put on hold: the cheapest way to keep a message that Postfix has.
        None => "smtpd_recipient_restrictions = static:HOLD, permit_mynetworks, reject\n".to_owned(),
    };
    let main = format!(
        "compatibility_level = 3.6\nqueue_directory = {root}/queue\ndata_directory = {root}/data\n\
         maillog_file = {root}/data/maillog\nmaillog_file_prefixes = {root}\nmyhostname = postfix.example\n\
         mydestination =\nmynetworks = 127.0.0.0/8\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
         alias_maps =\nalias_database =\nsmtpd_tls_security_level = none\nsmtp_tls_security_level = none\n\
         default_process_limit = {processes}\ndefault_destination_concurrency_limit = {connections}\n\
         smtpd_client_connection_count_limit = 0\nsmtpd_recipient_limit = 1000\n{after}",
        root = here.display(),
        processes = connections.max(100) + 50,
    );
    fs::write(configuration.join("main.cf"), main).map_err(Failure::new)?;
    fs::write(configuration.join("master.cf"), services(address)).map_err(Failure::new)?;
    control(&configuration, "start")?;
    let stop = Stop::Postfix(configuration);
    let pid_file = here.join("queue/pid/master.pid");
    for _ in 0..STEPS {
        let pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok());
        if let (Some(pid), Ok(_)) = (pid, TcpStream::connect(address)) {
            return Ok(Running { address, pid, _stop: stop, _folder: folder });
        }
        tokio::time::sleep(STEP).await;
    }
    drop(stop);
    Err(Failure::new("postfix did not start within ten seconds; `postfix check` may say why"))
}

/// Its processes run under accounts of their own and must reach their queue.
fn open_to_all(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(Failure::new)
}

fn control(configuration: &Path, verb: &str) -> Result<(), Failure> {
    run(Command::new("postfix").arg("-c").arg(configuration).arg(verb))
}

fn run(command: &mut Command) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| {
        Failure::new(format!("{program}: {error}; the peer must be installed and be started as root"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{program} failed ({}): {}", output.status, why.trim())))
}
