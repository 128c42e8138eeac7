//! Smart hosts that want a login: Postfix takes mail from `postwright serve`, Dovecot knows the accounts, and both are
//! the judges: Postfix refuses a sender that is not the user's own, and writes into the header who logged in.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use postwright_testkit::announce;
use support::dovecot::Dovecot;
use support::load::Client;
use support::mta::Mta;
use support::postfix::Postfix;
use support::receiver::Receiver;
use support::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const BODY: &[u8] = b"Subject: x\r\n\r\nx\r\n";

/// Postfix in front of a receiver, with Dovecot behind it, and what a client of it needs.
struct Provider {
    dir: tempfile::TempDir,
    receiver: Receiver,
    postfix: Postfix,
    dovecot: Dovecot,
}

impl Provider {
    /// `Err` says what is not installed.
    fn start() -> Result<Provider, (&'static str, String)> {
        let dir = tempfile::tempdir().unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        certificate(dir.path());
        let dovecot = Dovecot::start().map_err(|why| ("dovecot", why))?;
        dovecot.set_passwords("joe's secret", "ann's secret");
        let receiver = Receiver::start();
        let here = dir.path().display();
        std::fs::write(
            dir.path().join("owners"),
            "@a.test joe@ours.test\n@b.test ann@ours.test\n@c.test ann@ours.test\n",
        )
        .unwrap();
        let more = format!(
            "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {here}/cert.pem\nsmtpd_tls_key_file = {here}/key.pem\n\
             smtpd_tls_auth_only = yes\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\n\
             smtpd_sasl_path = {}\nsmtpd_sasl_security_options = noanonymous\nsmtpd_sasl_authenticated_header = yes\n\
             smtpd_relay_restrictions = permit_sasl_authenticated, reject\n\
             smtpd_sender_login_maps = texthash:{here}/owners\n\
             smtpd_sender_restrictions = reject_sender_login_mismatch\n",
            dovecot.sasl().display(),
        );
        let postfix = Postfix::with(receiver.address, &more).map_err(|why| ("postfix", why))?;
        Ok(Provider { dir, receiver, postfix, dovecot })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A configuration of two accounts there, by sender.
    fn config(&self, roots: bool) -> PathBuf {
        std::fs::write(self.file("zone"), "relay.test. A 127.0.0.1\n").unwrap();
        self.set_secret("joe", "joe's secret");
        self.set_secret("ann", "ann's secret");
        let port = self.postfix.address.port();
        let roots = if roots { format!("roots = {:?}\n", self.file("root.pem")) } else { String::new() };
        let text = format!(
            "hostname = \"mta.test\"\n[spool]\npath = {:?}\nmin_free = \"1 MiB\"\n[control]\nsocket = {:?}\n\
             [[listen]]\naddress = \"127.0.0.1:0\"\n[dns]\nzone = {:?}\n[authentication]\ncheck = false\n\
             [delivery]\nsmart_host = \"relay.test:{port}\"\nsmart_host_credentials = \"joe\"\n{roots}\
             [[credentials]]\nname = \"joe\"\nuser = \"joe@ours.test\"\npassword_file = {:?}\n\
             [[credentials]]\nname = \"ann\"\nuser = \"ann@ours.test\"\npassword_file = {:?}\nmechanisms = \"PLAIN\"\n\
             [[route]]\nsender = \"b.test\"\nhost = \"relay.test:{port}\"\ncredentials = \"ann\"\n\
             [[route]]\nstream = \"bulk\"\nhost = \"relay.test:{port}\"\ncredentials = \"ann\"\nname = \"bulk\"\nrate = \"100/s\"\n\
             [[class]]\nstream = \"bulk\"\nsender = \"c.test\"\n",
            self.file("spool"),
            self.file("control"),
            self.file("zone"),
            self.file("joe"),
            self.file("ann"),
        );
        std::fs::write(self.file("mta.toml"), text).unwrap();
        self.file("mta.toml")
    }

    fn set_secret(&self, name: &str, secret: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.file(name);
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn queue(&self, words: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postwright"));
        let output =
            command.arg("queue").args(words).arg("--config").arg(self.file("mta.toml")).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap()
    }
}

/// A certificate for `relay.test` and 127.0.0.1 with its key, and its root.
fn certificate(dir: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(dir.join("root.pem"), root.clone().self_signed(&root_key).unwrap().pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["relay.test".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let cert = params.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn two_accounts_at_one_provider_are_never_mixed() {
    let provider = match Provider::start() {
        Ok(provider) => provider,
        Err((name, why)) => return announce(name, &why),
    };
    let mta = Mta::logging(&provider.config(true), &provider.file("log"));
    let mut client = Client::connect(mta.address).unwrap();
    for number in 0..20 {
        let from = ["x@a.test", "x@b.test"][number % 2];
        client.send(from, &[&format!("u{number}@to{}.test", number % 5)], BODY).unwrap();
    }
    // What a class says of it decides, as a sender does; it has a site of its own.
    client.send("x@c.test", &["u@to0.test"], BODY).unwrap();
    wait_until("all arrive", PATIENCE, || provider.receiver.count() == 21);
    for mail in provider.receiver.mails() {
        let user = if mail.from.contains("a.test") { "joe" } else { "ann" };
        let text = String::from_utf8_lossy(&mail.body).into_owned();
        let login = format!("(Authenticated sender: {user}@ours.test)");
        assert!(text.contains(&login) && text.contains("with ESMTPSA id"), "{}: {text}", mail.from);
    }
    let log = provider.postfix.log();
    let by = |method: &str, user: &str| {
        log.contains(&format!("sasl_method={method}, sasl_username={user}@ours.test"))
    };
    assert!(by("SCRAM-SHA-256", "joe"), "the best that both have: {log}");
    assert!(by("PLAIN", "ann") && !by("SCRAM-SHA-256", "ann"), "only what is named: {log}");
    // A second message of the same user took the connection of the first, also to another domain.
    let sessions = log.matches("disconnect from").count() + log.matches(": connect from").count();
    assert!(sessions < 60, "{sessions}");
    assert!(mta.terminate(PATIENCE).success());
    for secret in ["joe's secret", "ann's secret"] {
        assert!(!provider.log().contains(secret), "a secret in the log, which is at its most talkative");
    }
}

#[test]
fn a_wrong_password_delays_until_the_right_one_is_read() {
    let provider = match Provider::start() {
        Ok(provider) => provider,
        Err((name, why)) => return announce(name, &why),
    };
    let config = provider.config(true);
    provider.set_secret("joe", "an old secret");
    let mta = Mta::logging(&config, &provider.file("log"));
    let mut client = Client::connect(mta.address).unwrap();
    client.send("x@a.test", &["first@to.test"], BODY).unwrap();
    let refused = || provider.log().contains("the smart host refused the account");
    wait_until("the operator is told", PATIENCE, refused);
    client.send("x@a.test", &["second@to.test"], BODY).unwrap();
    // The other account goes on.
    client.send("x@b.test", &["third@to.test"], BODY).unwrap();
    wait_until("the other account's mail arrives", PATIENCE, || provider.receiver.count() == 1);
    assert!(provider.log().contains("535 5.7.8"), "{}", provider.log());
    assert!(!provider.log().contains("bounced"), "{}", provider.log());
    let failures = provider.postfix.log().matches("authentication failed").count();
    assert_eq!(failures, 1, "{}", provider.postfix.log());
    provider.set_secret("joe", "joe's secret");
    mta.signal("-HUP");
    wait_until("the secret is read", PATIENCE, || {
        provider.log().contains("credentials for smart hosts read again")
    });
    provider.queue(&["flush", "--all"]);
    wait_until("all arrive", PATIENCE, || provider.receiver.count() == 3);
    // A password that is exchanged at the provider ends no connection; the next one needs the new one.
    provider.dovecot.set_passwords("joe's new secret", "ann's secret");
    provider.set_secret("joe", "joe's new secret");
    mta.signal("-HUP");
    let times = || provider.log().matches("credentials for smart hosts read again").count();
    wait_until("the secret is read", PATIENCE, || times() == 2);
    client.send("x@a.test", &["fourth@to.test"], BODY).unwrap();
    wait_until("it arrives", PATIENCE, || provider.receiver.count() == 4);
    assert!(mta.terminate(PATIENCE).success());
}

#[test]
fn a_private_authority_must_be_named() {
    let provider = match Provider::start() {
        Ok(provider) => provider,
        Err((name, why)) => return announce(name, &why),
    };
    let mta = Mta::logging(&provider.config(false), &provider.file("log"));
    let mut client = Client::connect(mta.address).unwrap();
    client.send("x@a.test", &["first@to.test"], BODY).unwrap();
    wait_until("it is deferred", PATIENCE, || provider.log().contains("deferred"));
    assert!(provider.log().contains("UnknownIssuer"), "{}", provider.log());
    assert!(!provider.postfix.log().contains("sasl_"), "{}", provider.postfix.log());
    assert!(mta.terminate(PATIENCE).success());
}

/// The example of the client, as its first lines say to call it.
#[test]
fn the_relay_example_sends_through_a_provider() {
    let provider = match Provider::start() {
        Ok(provider) => provider,
        Err((name, why)) => return announce(name, &why),
    };
    let (host, port) =
        (provider.postfix.address.ip().to_string(), provider.postfix.address.port().to_string());
    let relay = |password: &str, from: &str| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["run", "-q", "-p", "postwright-smtp-client", "--example", "relay", "--"]);
        command.args([&format!("[{host}]"), &port, "joe@ours.test", from, "you@to.test"]);
        command.env("PASSWORD", password).env("ROOT", provider.file("root.pem"));
        command.stdin(std::fs::File::open(provider.file("message")).unwrap());
        let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    std::fs::write(provider.file("message"), BODY).unwrap();
    let said = relay("joe's secret", "x@a.test");
    assert!(said.starts_with("Delivered 2.0.0"), "{said} {}", provider.postfix.log());
    wait_until("it arrives", PATIENCE, || provider.receiver.count() == 1);
    assert!(relay("wrong", "x@a.test").starts_with("Delayed 4.7.8"));
    // The account is joe's, the sender ann's: that is the mail's own fault.
    assert!(relay("joe's secret", "x@b.test").starts_with("Failed 5.7.1"));
}
