//! A configuration that is broken, as an operator meets it: `config check` and `serve` say the same in one line, which names
//! the place and what to do, with exit code 2, and mail that lies in the spool stays there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use support::secure::account;
use support::wait_until;

/// A small site: an MX and a submission listener, one domain, one user, one signing key.
struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let site = Site { folder: tempfile::tempdir().unwrap() };
        site.certificate("mx", "mx.site.test", (2025, 2500));
        std::fs::write(site.at("accounts"), account("joe@site.test", "secret", "scram")).unwrap();
        std::fs::write(site.at("recipients"), "joe@site.test\n").unwrap();
        let dkim = site.at("dkim.pem");
        let made = postwright(&["dkim", "keygen", "--algorithm", "ed25519", "--out", &dkim]);
        assert!(made.status.success(), "{made:?}");
        ["mx.key", "accounts"].iter().for_each(|name| site.mode(name, 0o600));
        site
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.at(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// `name.pem` and `name.key`, for a host and from one year to another.
    fn certificate(&self, name: &str, host: &str, (from, to): (i32, i32)) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
        std::fs::write(self.at(&format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(self.at(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn good(&self) -> String {
        let tls = format!("tls = {{ certificate = {:?}, key = {:?} }}", self.at("mx.pem"), self.at("mx.key"));
        format!(
            "hostname = \"mx.site.test\"\n[spool]\npath = {:?}\nmin_free = \"1 B\"\n\
             [[listen]]\naddress = \"127.0.0.1:0\"\n{tls}\n\
             [[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"submission\"\n{tls}\n\
             [accounts]\nfile = {:?}\n\
             [relay]\ndomains = [\"site.test\"]\nrecipients = {:?}\n\
             [[route]]\ndomain = \"site.test\"\nhost = \"127.0.0.1:9\"\n\
             [delivery]\nsmart_host = \"127.0.0.1:9\"\n\
             [[dkim]]\ndomain = \"site.test\"\nselector = \"s1\"\nkey = {:?}\n\
             [control]\nsocket = {:?}\n",
            self.at("spool"),
            self.at("accounts"),
            self.at("recipients"),
            self.at("dkim.pem"),
            self.at("control.sock"),
        )
    }

    fn write(&self, text: &str) -> String {
        let file = self.at("mta.toml");
        std::fs::write(&file, text).unwrap();
        file
    }
}

fn postwright(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postwright")).args(arguments).env("RUST_LOG", "warn").output().unwrap()
}

/// The complaint: exit code 2, nothing on stdout, one line on stderr.
fn complaint(arguments: &[&str]) -> String {
    let output = postwright(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?} said {said:?}");
    assert!(output.stdout.is_empty() && said.lines().count() == 1, "{arguments:?} said {said:?}");
    said
}

#[test]
fn files_that_the_configuration_names_are_missed_by_key_and_path_before_a_start() {
    let site = Site::new();
    site.certificate("other", "mx.site.test", (2025, 2500));
    std::fs::write(site.at("empty"), "nothing\n").unwrap();
    for (name, instead, parts) in [
        ("mx.pem", "no.pem", &["listen.tls.certificate", "no.pem", "correct the path"][..]),
        ("mx.pem", "empty", &["listen.tls.certificate", "empty", "BEGIN CERTIFICATE"]),
        ("mx.key", "no.key", &["listen.tls.key", "no.key", "correct the path"]),
        ("mx.key", "empty", &["listen.tls.key", "empty", "BEGIN PRIVATE KEY"]),
        ("mx.key", "other.key", &["listen.tls.key", "other.key", "not the key of the certificate", "mx.pem"]),
        ("accounts", "no-accounts", &["accounts.file", "no-accounts", "correct the path"]),
        ("accounts", "empty", &["accounts.file", "line 1", "SCRAM-SHA-256"]),
        ("recipients", "no-recipients", &["relay.recipients", "no-recipients", "correct the path"]),
        ("dkim.pem", "no-dkim.pem", &["dkim.key", "no-dkim.pem", "correct the path"]),
        ("dkim.pem", "empty", &["dkim.key", "empty", "PRIVATE KEY"]),
    ] {
        let file = site.write(&site.good().replace(&site.at(name), &site.at(instead)));
        for arguments in [&["config", "check", &file][..], &["serve", "--config", &file]] {
            let said = complaint(arguments);
            for part in parts {
                assert!(
                    said.contains(part),
                    "{arguments:?} with {instead} for {name} lacks {part:?}: {said}"
                );
            }
        }
        let output = postwright(&["config", "check", "--text-only", &file]);
        assert!(output.status.success(), "the text is fine: {output:?}");
    }
}

#[test]
fn one_check_names_the_faults_of_all_files() {
    let site = Site::new();
    let text = ["mx.pem", "accounts", "dkim.pem"]
        .iter()
        .fold(site.good(), |text, name| text.replace(&site.at(name), &site.at(&format!("no-{name}"))));
    let said = complaint(&["config", "check", &site.write(&text)]);
    for part in ["no-mx.pem", "no-accounts", "no-dkim.pem"] {
        assert_eq!(said.matches(part).count(), 1, "{part} once: {said}");
    }
}

#[test]
fn what_only_a_start_can_tell_says_what_to_do() {
    let site = Site::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    std::fs::write(site.at("in-the-way"), "mail").unwrap();
    let cases = [
        (site.good().replacen("127.0.0.1:0", &address, 1), &[&*address, "in use", "ss -ltnp"][..]),
        (site.good().replacen("127.0.0.1:0", "192.0.2.1:2525", 1), &["192.0.2.1:2525", "no interface"]),
        (
            site.good().replace(&site.at("spool"), "/proc/no/spool"),
            &["spool", "/proc/no/spool", "cannot make"],
        ),
        (site.good().replace(&site.at("control.sock"), &site.at("no/c")), &["control.socket", "make it"]),
        (
            site.good().replace(&site.at("control.sock"), &site.at("in-the-way")),
            &["control.socket", "no socket", "another path"],
        ),
    ];
    for (text, parts) in cases {
        let said = complaint(&["serve", "--config", &site.write(&text)]);
        for part in parts {
            assert!(said.contains(part), "lacks {part:?}: {said}");
        }
    }
    assert_eq!(std::fs::read(site.at("in-the-way")).unwrap(), b"mail", "it is not overwritten");
}

#[test]
fn what_works_and_is_not_meant_is_a_warning() {
    let site = Site::new();
    let fine = postwright(&["config", "check", &site.write(&site.good())]);
    assert_eq!(String::from_utf8(fine.stdout).unwrap(), format!("{}: fine\n", site.at("mta.toml")));
    site.certificate("old", "mx.site.test", (2019, 2020));
    site.certificate("early", "mx.site.test", (2400, 2500));
    site.certificate("foreign", "mx.other.test", (2025, 2500));
    ["old.key", "early.key", "foreign.key"].iter().for_each(|name| site.mode(name, 0o600));
    for (name, parts) in [
        ("old", &["old.pem", "expired at 2020-01-01", "SIGHUP"][..]),
        ("early", &["early.pem", "not begun"]),
        ("foreign", &["foreign.pem", "not for mx.site.test"]),
    ] {
        let text =
            site.good().replace("mx.pem", &format!("{name}.pem")).replace("mx.key", &format!("{name}.key"));
        let output = postwright(&["config", "check", &site.write(&text)]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.contains("warning: "), "{said}");
        for part in parts {
            assert!(said.contains(part), "{name} lacks {part:?}: {said}");
        }
    }
    // What a folder keeps strangers from is no matter of the file's own permissions.
    site.mode("accounts", 0o644);
    let check =
        || String::from_utf8(postwright(&["config", "check", &site.write(&site.good())]).stdout).unwrap();
    std::fs::set_permissions(site.folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    assert!(!check().contains("warning"), "{}", check());
    std::fs::set_permissions(site.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(
        check().contains("accounts.file") && check().contains("every user") && check().contains("chmod o= ")
    );
}

/// A child that is ended with the test.
struct Serving(std::process::Child);

impl Serving {
    fn start(file: &str, log: &Path) -> (Serving, SocketAddr) {
        let out = PathBuf::from(format!("{}.out", log.display()));
        let child = Command::new(env!("CARGO_BIN_EXE_postwright"))
            .args(["serve", "--config", file])
            .stdout(std::fs::File::create(&out).unwrap())
            .stderr(std::fs::File::create(log).unwrap())
            .spawn()
            .unwrap();
        let serving = Serving(child);
        let heard = || std::fs::read_to_string(&out).unwrap_or_default();
        wait_until("it listens", Duration::from_secs(20), || heard().lines().count() == 2);
        let address = heard().lines().next().unwrap().strip_prefix("listening on ").unwrap().parse().unwrap();
        (serving, address)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

#[test]
fn a_full_disk_and_a_silent_dns_are_said_aloud_at_the_start() {
    let site = Site::new();
    // It listens and says nothing.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let text =
        site.good().replace("\"1 B\"", "\"1000000 GiB\"") + &format!("[dns]\nservers = [{address:?}]\n");
    let log = site.folder.path().join("log");
    let (_serving, mx) = Serving::start(&site.write(&text), &log);
    let logged = || std::fs::read_to_string(&log).unwrap();
    assert!(logged().contains("spool.min_free") && logged().contains("452"), "{}", logged());
    let mut client = support::load::Client::connect(mx).unwrap();
    let refused = client.send("a@load.test", &["joe@site.test"], b"Subject: x\r\n\r\nx\r\n");
    assert!(refused.is_err(), "there is no room");
    wait_until("the silence of DNS is told", Duration::from_secs(60), || {
        ["dns.servers", &address, "correct", "postwright lookup"].iter().all(|part| logged().contains(part))
    });
}

#[test]
fn a_second_server_and_a_broken_reload_lose_nothing() {
    let site = Site::new();
    let file = site.write(&site.good());
    let log = site.folder.path().join("log");
    let (serving, address) = Serving::start(&file, &log);
    let mut client = support::load::Client::connect(address).unwrap();
    client.send("a@load.test", &["joe@site.test"], b"Subject: kept\r\n\r\nx\r\n").unwrap();

    let said = complaint(&["serve", "--config", &file]);
    assert!(said.contains(&site.at("spool")) && said.contains("another process"), "{said}");
    let said = complaint(&["serve", "--config", &site.write(&site.good().replace("/spool\"", "/spool2\""))]);
    assert!(said.contains("control.socket") && said.contains("another process"), "{said}");

    // A reload with everything broken: each part says so, and everything goes on as it was.
    site.write("hostnam = 1");
    for name in ["mx.pem", "accounts"] {
        std::fs::write(site.at(name), "broken\n").unwrap();
    }
    let status = Command::new("kill").args(["-HUP", &serving.0.id().to_string()]).status().unwrap();
    assert!(status.success());
    let logged = || std::fs::read_to_string(&log).unwrap();
    let wanted = ["the old certificates stay", "the old accounts stay", "the old ones stay in use"];
    wait_until("the log says what stays", Duration::from_secs(20), || {
        wanted.iter().all(|part| logged().contains(part))
    });
    assert!(logged().contains("did you mean `hostname`?"), "{}", logged());
    client.send("a@load.test", &["joe@site.test"], b"Subject: too\r\n\r\nx\r\n").unwrap();

    let listed = postwright(&["queue", "--control", &site.at("control.sock"), "list"]);
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 2, "both are there");
}
