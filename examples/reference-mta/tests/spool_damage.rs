//! `serve` over a spool that somebody damaged: it serves or refuses in one line, never panics, and never delivers
//! half a message (FAULTS R4). What single records look like when torn is tested beside the store.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::load::Client;
use support::mta::Mta;
use support::receiver::Receiver;
use support::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);
const MESSAGES: usize = 5;

fn config(dir: &Path, spool: &Path, smart_host: &str) -> PathBuf {
    let text = format!(
        "hostname = \"mta.test\"\n[spool]\npath = {spool:?}\n[[listen]]\naddress = \"127.0.0.1:0\"\n[delivery]\n\
         smart_host = \"{smart_host}\"\n[retry]\nfirst = \"1s\"\nlongest = \"1s\"\n",
    );
    let file = dir.join("config");
    std::fs::write(&file, text).unwrap();
    file
}

fn body(number: usize) -> String {
    format!("X-Number: {number}\r\n\r\n{}end\r\n", "0123456789\r\n".repeat(100))
}

/// A spool of five messages that could not be delivered, closed again.
fn fill(dir: &Path) -> PathBuf {
    let spool = dir.join("template");
    let mta = Mta::with_config(&config(dir, &spool, "127.0.0.1:1"));
    let mut client = Client::connect(mta.address).unwrap();
    for number in 0..MESSAGES {
        client.send("a@load.test", &["b@receiver.test"], body(number).as_bytes()).unwrap();
    }
    assert!(mta.terminate(PATIENCE).success());
    spool
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Starts on `spool`. If it serves, it takes and delivers one more message; `true` then.
fn serves_or_says_why(dir: &Path, spool: &Path, case: &str) -> bool {
    let receiver = Receiver::start();
    let file = config(dir, spool, &receiver.address.to_string());
    let mta = match Mta::try_with_config(&file) {
        Ok(mta) => mta,
        Err((status, complaint)) => {
            assert_eq!(status.code(), Some(2), "{case}: {complaint}");
            assert_eq!(complaint.trim().lines().count(), 1, "{case}: {complaint}");
            return false;
        }
    };
    let mut client = Client::connect(mta.address).unwrap();
    client.send("a@load.test", &["b@receiver.test"], body(99).as_bytes()).unwrap();
    let number = |mail: &support::receiver::Mail| mail.field("X-Number").unwrap().parse::<usize>().unwrap();
    wait_until(&format!("{case}: the new message has arrived"), PATIENCE, || {
        receiver.mails().iter().any(|mail| number(mail) == 99)
    });
    for mail in receiver.mails() {
        let text = String::from_utf8(mail.body.clone()).unwrap();
        assert!(text.ends_with(&body(number(&mail))), "{case}: changed on its way: {text}");
    }
    true
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Emptied,
    Garbled,
    Halved,
}

impl Damage {
    /// To what a file really holds: journals are made longer in advance, by zeros.
    fn apply(self, path: &Path) {
        let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut head = Vec::new();
        Read::by_ref(&mut file).take(256 * 1024).read_to_end(&mut head).unwrap();
        let used = head.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
        match self {
            Damage::Emptied => file.set_len(0).unwrap(),
            Damage::Halved => file.set_len(used as u64 / 2).unwrap(),
            Damage::Garbled => {
                head.truncate(used);
                head.iter_mut().for_each(|octet| *octet = octet.wrapping_mul(167) ^ 0x5a);
                file.seek(SeekFrom::Start(0)).unwrap();
                file.write_all(&head).unwrap();
            }
        }
    }
}

#[test]
fn foreign_files_in_the_spool_hurt_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let template = fill(dir.path());
    std::fs::write(template.join("README"), "who put this here?").unwrap();
    std::fs::write(template.join("0.tmp"), "").unwrap();
    std::fs::write(template.join("core"), [0xff; 10_000]).unwrap();
    std::fs::create_dir(template.join("lost+found")).unwrap();
    let receiver = Receiver::start();
    let mta = Mta::with_config(&config(dir.path(), &template, &receiver.address.to_string()));
    wait_until("all have arrived", PATIENCE, || receiver.count() == MESSAGES);
    assert!(mta.terminate(PATIENCE).success());
}

#[test]
fn each_file_damaged_is_survived_or_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let template = fill(dir.path());
    let (mut served, mut refused) = (0, 0);
    for file in files(&template) {
        let name = file.strip_prefix(&template).unwrap().to_owned();
        // The keyspaces are alike; one stands for all.
        if name.starts_with("keyspaces") && !name.starts_with("keyspaces/1") {
            continue;
        }
        for damage in [Damage::Emptied, Damage::Garbled, Damage::Halved] {
            let spool = dir.path().join("damaged");
            copy(&template, &spool);
            damage.apply(&spool.join(&name));
            let case = format!("{} {damage:?}", name.display());
            if serves_or_says_why(dir.path(), &spool, &case) {
                served += 1
            } else {
                refused += 1
            }
            std::fs::remove_dir_all(&spool).unwrap();
        }
    }
    eprintln!("damaged files: served {served}, refused {refused}");
    assert!(served + refused > 0);
}

#[test]
fn what_is_no_folder_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    assert!(!serves_or_says_why(dir.path(), &file, "a file in place of the folder"));
    assert_eq!(std::fs::read(&file).unwrap(), b"not a folder", "left as it was");
}

/// FAULTS R4: what stood behind the damage is delivered, what is lost is told, and it is there to be looked at.
#[test]
fn a_journal_damaged_in_its_middle_costs_one_message_and_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let spool = fill(dir.path());
    let journal = spool.join("0.jnl");
    let mut octets = std::fs::read(&journal).unwrap();
    let needle = b"X-Number: 2";
    let at = octets.windows(needle.len()).position(|window| window == needle).expect("the third message");
    octets[at] ^= 0xff;
    std::fs::write(&journal, octets).unwrap();
    let check = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_postwright"));
        let output = command.args(["spool", "check"]).arg(&spool).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let report = check();
    assert_eq!(report["messages"], MESSAGES - 1, "{report}");
    // If an attempt at the message was noted behind the damage, its entry is there without its body, and is named too.
    let journal = |report: &serde_json::Value| {
        let of_journal = |item: &&serde_json::Value| item["id"] == "journal 0.jnl.1";
        report["damaged"].as_array().unwrap().iter().find(of_journal).cloned()
    };
    let found = journal(&report).unwrap_or_else(|| panic!("{report}"));
    assert_eq!(found["quarantined"], true, "{report}");
    let reason = found["reason"].as_str().unwrap();
    assert!(reason.contains("octets cannot be read") && reason.contains("are kept"), "{reason}");
    // It stays known.
    assert!(journal(&check()).is_some());
    let receiver = Receiver::start();
    let mta = Mta::with_config(&config(dir.path(), &spool, &receiver.address.to_string()));
    wait_until("what is left has arrived", PATIENCE, || receiver.count() == MESSAGES - 1);
    let numbers: Vec<String> = receiver.tally("X-Number").into_keys().collect();
    assert_eq!(numbers, ["0", "1", "3", "4"]);
    assert!(mta.terminate(PATIENCE).success());
}
