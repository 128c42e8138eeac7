//! A private Postfix: own folders, high port, relays everything to one address. It needs root, as Postfix does.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use postwright_testkit::peers;

use super::load::Client;

#[path = "../../src/bench/postfix_services.rs"]
mod postfix_services;
use postfix_services::services;

pub struct Postfix {
    dir: tempfile::TempDir,
    program: PathBuf,
    pub address: SocketAddr,
}

impl Postfix {
    /// `Err` says why there is none.
    pub fn start(relay_to: SocketAddr) -> Result<Postfix, String> {
        Postfix::with(relay_to, "")
    }

    /// With more lines for its main.cf.
    pub fn with(relay_to: SocketAddr, more: &str) -> Result<Postfix, String> {
        // One that was only unpacked has no accounts of its own.
        let program = peers::installed("postfix").ok_or("postfix is not installed")?;
        let daemons =
            peers::installed("smtpd").and_then(|path| Some(path.parent()?.to_owned())).ok_or("no smtpd")?;
        if !peers::is_root() {
            return Err("postfix starts as root only".to_owned());
        }
        let dir = tempfile::Builder::new().prefix("pw-postfix").tempdir().unwrap();
        let here = dir.path();
        for part in ["conf", "queue", "data", "log"] {
            std::fs::create_dir(here.join(part)).unwrap();
        }
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(here, std::fs::Permissions::from_mode(0o755)).unwrap();
        run("chown", &["postfix", here.join("data").to_str().unwrap()])?;
        let address = free_address();
        let root = here.display();
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {root}/queue\ndata_directory = {root}/data\n\
             command_directory = {}\ndaemon_directory = {}\nmaillog_file = {root}/log/maillog\n\
             maillog_file_prefixes = /tmp, /var\nmail_owner = postfix\nmyhostname = postfix.test\nmydestination =\n\
             mynetworks = 127.0.0.0/8\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
             relayhost = [{}]:{}\nalias_maps =\nalias_database =\nsmtpd_tls_security_level = none\n\
             smtp_tls_security_level = may\nmessage_size_limit = 100000000\n\
             local_header_rewrite_clients =\nminimal_backoff_time = 2s\n\
             maximal_backoff_time = 4s\nqueue_run_delay = 2s\n{more}",
            program.parent().unwrap().display(),
            daemons.display(),
            relay_to.ip(),
            relay_to.port(),
        );
        std::fs::write(here.join("conf/main.cf"), main).unwrap();
        std::fs::write(here.join("conf/master.cf"), services(address)).unwrap();
        let postfix = Postfix { dir, program, address };
        postfix.control("start")?;
        super::wait_until("postfix greets", Duration::from_secs(20), || {
            Client::raw(address).and_then(|mut client| client.expect(2)).is_ok()
        });
        Ok(postfix)
    }

    fn control(&self, verb: &str) -> Result<(), String> {
        let conf = self.dir.path().join("conf");
        run(self.program.to_str().unwrap(), &["-c", conf.to_str().unwrap(), verb])
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log/maillog")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = self.control("stop");
    }
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output =
        std::process::Command::new(program).args(args).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// A port that was free a moment ago.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
