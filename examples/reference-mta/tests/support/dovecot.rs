//! A private Dovecot that takes mail over LMTP, by a UNIX socket and by TCP, into Maildirs, and tells Postfix whether
//! logins are right. It needs root, as
//! Dovecot's master does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use postwright_testkit::peers;

use super::postfix::free_address;

pub struct Dovecot {
    dir: tempfile::TempDir,
    child: Child,
    pub address: SocketAddr,
}

impl Dovecot {
    /// With mailboxes for `joe` and `ann` at `ours.test`. `Err` says why there is none.
    pub fn start() -> Result<Dovecot, String> {
        // One that was only unpacked has no accounts of its own.
        let program = peers::installed("dovecot").ok_or("dovecot is not installed")?;
        if !Path::new("/usr/lib/dovecot/lmtp").exists() {
            return Err("dovecot-lmtpd is not installed".to_owned());
        }
        let id = Command::new("id").arg("-u").output().map_err(|error| error.to_string())?;
        if id.stdout != b"0\n" {
            return Err("dovecot starts as root only".to_owned());
        }
        let dir = tempfile::Builder::new().prefix("pw-dovecot").tempdir().unwrap();
        let here = dir.path();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(here, std::fs::Permissions::from_mode(0o755)).unwrap();
        for part in ["base", "state", "mail"] {
            std::fs::create_dir(here.join(part)).unwrap();
        }
        let owned = Command::new("chown").arg("mail:mail").arg(here.join("mail")).status();
        if !owned.is_ok_and(|status| status.success()) {
            return Err("there is no account named mail".to_owned());
        }
        let address = free_address();
        std::fs::write(here.join("users"), "joe@ours.test:{PLAIN}x::::::\nann@ours.test:{PLAIN}x::::::\n")
            .unwrap();
        std::fs::write(here.join("dovecot.conf"), config(here, address)).unwrap();
        let child = Command::new(program)
            .args(["-F", "-c"])
            .arg(here.join("dovecot.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let dovecot = Dovecot { dir, child, address };
        super::wait_until("dovecot listens", Duration::from_secs(30), || {
            dovecot.socket().exists() && std::net::TcpStream::connect(address).is_ok()
        });
        Ok(dovecot)
    }

    /// Where Postfix asks it whether a login is right.
    pub fn sasl(&self) -> PathBuf {
        self.dir.path().join("base/auth-sasl")
    }

    /// The mailboxes' passwords, from when this returns: Dovecot looks at the file at most once in a second.
    pub fn set_passwords(&self, joe: &str, ann: &str) {
        let text = format!("joe@ours.test:{{PLAIN}}{joe}::::::\nann@ours.test:{{PLAIN}}{ann}::::::\n");
        std::fs::write(self.dir.path().join("users"), text).unwrap();
        super::pause(Duration::from_millis(1_100));
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("base/lmtp")
    }

    /// The messages in a mailbox, as Dovecot stored them.
    pub fn mails(&self, user: &str) -> Vec<Vec<u8>> {
        let folder = self.dir.path().join("mail").join(user).join("new");
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.map(|file| std::fs::read(file.path()).unwrap()).collect()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // SIGTERM, so that the master takes its services along.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn config(here: &Path, address: SocketAddr) -> String {
    let root = here.display();
    format!(
        "base_dir = {root}/base\nstate_dir = {root}/state\nlog_path = {root}/log\nprotocols = lmtp\nssl = no\n\
         mail_location = maildir:{root}/mail/%n\nmail_save_crlf = yes\nfirst_valid_uid = 1\nfirst_valid_gid = 1\n\
         passdb {{\n driver = passwd-file\n args = {root}/users\n}}\n\
         userdb {{\n driver = passwd-file\n args = {root}/users\n \
         default_fields = uid=mail gid=mail home={root}/mail/%n\n}}\n\
         auth_mechanisms = plain login scram-sha-256\nservice auth {{\n unix_listener auth-sasl {{\n  mode = 0666\n }}\n}}\n\
         service lmtp {{\n unix_listener lmtp {{\n  mode = 0600\n }}\n inet_listener lmtp {{\n  address = {}\n  \
         port = {}\n }}\n}}\nservice anvil {{\n chroot =\n}}\nservice stats {{\n chroot =\n}}\n",
        address.ip(),
        address.port()
    )
}
