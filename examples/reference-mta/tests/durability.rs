//! What a 250 is worth, seen from outside: the sync comes first, one process has the spool, a full disk refuses
//! and goes on delivering, a receiver that dies loses nothing (FAULTS R2, R7, R9, R11, R12, R14, D1).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use postwright_testkit::{disk, peers, skip};
use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::{pause, wait_until};

const BODY: &[u8] = b"Subject: durable\r\n\r\nx\r\n";

#[test]
fn a_sync_returns_before_each_250() {
    let Some(strace) = peers::find("strace") else { skip!("sync-before-250", "no strace") };
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let trace = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new(strace);
    // -D: the MTA is our child, and the tracer its; so that killing it leaves nothing behind.
    command.args([
        "-D",
        "-f",
        "-qq",
        "-s",
        "80",
        "-e",
        "trace=fsync,fdatasync,write,writev,sendto,sendmsg",
        "-o",
    ]);
    command.arg(trace.path()).arg(env!("CARGO_BIN_EXE_postwright"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--hostname", "mta.test", "--spool"]).arg(spool.path());
    command.args(["--smart-host", &receiver.address.to_string()]);
    if !strace_works() {
        skip!("sync-before-250", "strace may not trace here");
    }
    let mta = Mta::spawn(command);
    let mut client = Client::connect(mta.address).unwrap();
    for _ in 0..5 {
        client.send("a@load.test", &["b@receiver.test"], BODY).unwrap();
        // The next message must not share a sync with this one, so that each 250 has to show its own.
        wait_until("it is delivered", Duration::from_secs(30), || receiver.count() > 0);
        pause(Duration::from_millis(50));
    }
    drop(client);
    mta.kill();
    let trace = std::fs::read_to_string(trace.path()).unwrap();
    let (mut synced, mut acknowledged) = (0, 0);
    for line in trace.lines() {
        let completed = line.trim_end().ends_with("= 0");
        if completed && (line.contains("fdatasync") || line.contains("fsync")) {
            synced += 1;
        }
        if line.contains("queued as") && line.contains("250 ") {
            acknowledged += 1;
            assert!(
                synced > 0,
                "250 number {acknowledged} went out without a sync since the one before:\n{line}"
            );
            synced = 0;
        }
    }
    assert_eq!(acknowledged, 5, "the trace shows every 250");
}

/// Containers often forbid ptrace.
fn strace_works() -> bool {
    let traced =
        peers::command("strace").map(|mut strace| strace.args(["-qq", "-o", "/dev/null", "true"]).status());
    matches!(traced, Some(Ok(status)) if status.success())
}

#[test]
fn a_second_process_on_the_same_spool_is_refused() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let _first = Mta::start(spool.path(), receiver.address, &[]);
    let output = Command::new(env!("CARGO_BIN_EXE_postwright"))
        .args(["serve", "--listen", "127.0.0.1:0", "--smart-host", "127.0.0.1:9", "--spool"])
        .arg(spool.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("in use by another process"), "{complaint}");
}

#[test]
fn a_full_disk_refuses_new_mail_and_goes_on_delivering() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let config = tempfile::NamedTempFile::new().unwrap();
    let write = |min_free: &str, smart_host: &str| {
        let text = format!(
            "hostname = \"mta.test\"\n[spool]\npath = {:?}\nmin_free = \"{min_free}\"\n[[listen]]\naddress = \
             \"127.0.0.1:0\"\n[delivery]\nsmart_host = \"{smart_host}\"\n[retry]\nfirst = \"1s\"\nlongest = \"1s\"\n",
            spool.path()
        );
        std::fs::write(config.path(), text).unwrap();
    };
    // Nobody listens at the smart host: the message stays in the queue.
    write("1 MiB", "127.0.0.1:1");
    let mta = Mta::with_config(config.path());
    Client::connect(mta.address).unwrap().send("a@load.test", &["b@receiver.test"], BODY).unwrap();
    assert!(mta.terminate(Duration::from_secs(20)).success());
    // The same spool, and no disk has a million GiB free.
    write("1000000 GiB", &receiver.address.to_string());
    let mta = Mta::with_config(config.path());
    let mut client = Client::connect(mta.address).unwrap();
    let error = client.send("a@load.test", &["b@receiver.test"], BODY).unwrap_err().to_string();
    assert!(error.starts_with("452 4.3.1"), "{error}");
    let early = client.command("MAIL FROM:<a@load.test>", 2).unwrap_err().to_string();
    assert!(early.starts_with("452 4.3.1"), "said before the message is sent: {early}");
    client.command("NOOP", 2).unwrap();
    wait_until("what was queued is delivered", Duration::from_secs(30), || receiver.count() == 1);
    // Recovery needs no restart of the spool's own making: the same client succeeds once there is room again.
    assert!(mta.terminate(Duration::from_secs(20)).success());
    write("1 MiB", &receiver.address.to_string());
    let mta = Mta::with_config(config.path());
    Client::connect(mta.address).unwrap().send("a@load.test", &["b@receiver.test"], BODY).unwrap();
    wait_until("the next one too", Duration::from_secs(30), || receiver.count() == 2);
}

#[test]
fn a_receiver_that_dies_before_its_250_costs_a_second_delivery_and_no_mail() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let config = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "hostname = \"mta.test\"\n[spool]\npath = {:?}\n[[listen]]\naddress = \"127.0.0.1:0\"\n[delivery]\n\
         smart_host = \"{}\"\n[retry]\nfirst = \"1s\"\nlongest = \"1s\"\n",
        spool.path(),
        receiver.address
    );
    std::fs::write(config.path(), text).unwrap();
    let mta = Mta::with_config(config.path());
    receiver.hang_up_after_the_dot(3);
    let mut client = Client::connect(mta.address).unwrap();
    for number in 0..6 {
        let body = format!("X-Number: {number}\r\n\r\nx\r\n");
        client.send("a@load.test", &["b@receiver.test"], body.as_bytes()).unwrap();
    }
    let arrived = |number: &str| {
        receiver.mails().iter().filter(|mail| mail.field("X-Number").as_deref() == Some(number)).count()
    };
    wait_until("all six have arrived with a 250", Duration::from_secs(60), || receiver.acknowledged() >= 6);
    for number in ["0", "1", "2", "3", "4", "5"] {
        // Taken once with a 250, and at most three times without.
        assert!((1..=4).contains(&arrived(number)), "{number} arrived {} times", arrived(number));
    }
    assert!(receiver.count() <= 6 + 3, "one second delivery for each connection that was cut");
}

#[test]
fn what_was_refused_for_good_is_not_tried_again_after_a_restart() {
    let (spool, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    receiver.refuse("nobody@receiver.test");
    let mta = Mta::start(spool.path(), receiver.address, &[]);
    let mut client = Client::connect(mta.address).unwrap();
    client.send("a@load.test", &["nobody@receiver.test", "b@receiver.test"], BODY).unwrap();
    // The message reaches one recipient, and the notification its sender.
    wait_until("message and notification have arrived", Duration::from_secs(30), || receiver.count() == 2);
    assert!(mta.terminate(Duration::from_secs(20)).success());
    let mta = Mta::start(spool.path(), receiver.address, &[]);
    Client::connect(mta.address).unwrap().send("a@load.test", &["b@receiver.test"], BODY).unwrap();
    wait_until("the next message has arrived", Duration::from_secs(30), || receiver.count() == 3);
    pause(Duration::from_millis(500));
    assert_eq!(receiver.count(), 3);
    assert_eq!(receiver.refusals(), 1, "asked once, before the restart");
    let notification = receiver.mails().into_iter().find(|mail| mail.from.is_empty()).unwrap();
    assert_eq!(notification.to, ["a@load.test"]);
    let text = String::from_utf8(notification.body).unwrap();
    assert!(text.contains("Final-Recipient: rfc822; nobody@receiver.test"), "{text}");
    assert!(text.contains("Status: 5.1.1"), "{text}");
}

/// A smart host, short pauses.
fn retrying(config: &Path, spool: &Path, smart_host: SocketAddr) {
    let text = format!(
        "hostname = \"mta.test\"\n[spool]\npath = {spool:?}\nmin_free = \"1 MiB\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
         [delivery]\nsmart_host = \"{smart_host}\"\n[retry]\nfirst = \"1s\"\nlongest = \"1s\"\n",
    );
    std::fs::write(config, text).unwrap();
}

const RECEIVER: &str = "POSTWRIGHT_TEST_RECEIVER";

/// Not a test of its own: a receiver in a process that can be killed. It writes down what it took before it says so.
#[test]
fn receiver_process() {
    let Ok(file) = std::env::var(RECEIVER) else { return };
    // Its standard input is the listening socket.
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let receiver = Receiver::start_on(TcpListener::from(socket));
    receiver.write_down(std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap());
    // Long enough for a kill to come between the dot and the 250.
    receiver.answer_after(Duration::from_millis(200));
    loop {
        pause(Duration::from_secs(1));
    }
}

struct Killable(std::process::Child);

impl Killable {
    /// While there is no process, connections wait in the socket, which outlives it.
    fn start(socket: &TcpListener, file: &Path) -> Killable {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["receiver_process", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(RECEIVER, file).stdout(Stdio::null()).stdin(OwnedFd::from(socket.try_clone().unwrap()));
        Killable(command.spawn().unwrap())
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_receiver_process_that_is_killed_costs_second_deliveries_and_no_mail() {
    const MESSAGES: usize = 120;
    /// Connections to one site: what can be in flight at a kill.
    const IN_FLIGHT: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let (config, file) = (folder.path().join("mta.toml"), folder.path().join("taken"));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    retrying(&config, &folder.path().join("spool"), socket.local_addr().unwrap());
    let taken = || std::fs::read_to_string(&file).unwrap_or_default();
    let mut receiver = Killable::start(&socket, &file);
    let mta = Mta::with_config(&config);
    let mut client = Client::connect(mta.address).unwrap();
    let (mut sent, mut kills) = (0, 0);
    while sent < MESSAGES {
        let before = taken().lines().count();
        for _ in 0..MESSAGES / 6 {
            let body = format!("X-Number: {sent}\r\n\r\nx\r\n");
            client.send("a@load.test", &["b@receiver.test"], body.as_bytes()).unwrap();
            sent += 1;
        }
        wait_until("some have arrived", Duration::from_secs(60), || taken().lines().count() > before + 2);
        drop(receiver);
        kills += 1;
        receiver = Killable::start(&socket, &file);
    }
    let arrivals = || {
        let mut arrivals = BTreeMap::<usize, usize>::new();
        taken().lines().for_each(|number| *arrivals.entry(number.parse().unwrap()).or_default() += 1);
        arrivals
    };
    wait_until("all have arrived", Duration::from_secs(90), || arrivals().len() == MESSAGES);
    pause(Duration::from_secs(2));
    let arrivals = arrivals();
    let twice: usize = arrivals.values().map(|times| times - 1).sum();
    eprintln!("{kills} kills, {MESSAGES} messages, {twice} second deliveries");
    assert!(twice > 0, "no kill came between a dot and its 250: that is not the test");
    assert!(twice <= kills * IN_FLIGHT, "{twice} second deliveries from {kills} kills");
    drop(receiver);
    mta.kill();
}

#[test]
fn a_crash_between_the_remote_250_and_our_note_of_it_costs_one_second_delivery() {
    let folder = tempfile::tempdir().unwrap();
    let Some(layer) = disk::layer(folder.path()) else { skip!("crash-at-250", "no C compiler, or no Linux") };
    let (config, spool) = (folder.path().join("mta.toml"), folder.path().join("spool"));
    let receiver = Receiver::start();
    retrying(&config, &spool, receiver.address);
    let flag = folder.path().join("die");
    let mut command = Command::new(env!("CARGO_BIN_EXE_postwright"));
    command.args(["serve", "--config"]).arg(&config).env("LD_PRELOAD", &layer);
    command.env("POSTWRIGHT_DISK", &spool).env("POSTWRIGHT_DISK_DIE", &flag);
    let mta = Mta::spawn(command);
    // From the dot on, the next write to the spool is the end; and there is none before the remote's 250 is read.
    receiver.at_the_next_dot(move || std::fs::write(flag, "").unwrap());
    Client::connect(mta.address).unwrap().send("a@load.test", &["b@receiver.test"], BODY).unwrap();
    let status = mta.has_died(Duration::from_secs(30));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    assert_eq!((receiver.count(), receiver.acknowledged()), (1, 1), "the remote said 250");
    // Whoever does not know sends again: once, and not for ever.
    let mta = Mta::with_config(&config);
    wait_until("the second delivery", Duration::from_secs(30), || receiver.acknowledged() == 2);
    assert!(mta.terminate(Duration::from_secs(20)).success());
    let mta = Mta::with_config(&config);
    Client::connect(mta.address).unwrap().send("a@load.test", &["b@receiver.test"], BODY).unwrap();
    wait_until("the next message", Duration::from_secs(30), || receiver.acknowledged() == 3);
    pause(Duration::from_millis(1500));
    assert_eq!(receiver.count(), 3);
    assert!(mta.terminate(Duration::from_secs(20)).success());
}
