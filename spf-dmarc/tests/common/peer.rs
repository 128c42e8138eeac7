//! An independent implementation as a child process that asks *us* for DNS: one line of JSON is a job, and until the
//! answer comes every line from the child is a question that the zone in memory answers. So all parties see the same
//! DNS, served by the same process.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use postwright_core::{
    DnsError, Entropy, Found, MemoryZone, Name, Record, RecordKind, Resolver, SeededEntropy,
};
use serde_json::{Value, json};

use crate::common::now;

/// A running peer.
pub(crate) struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts a script of `tests/peers`.
    pub(crate) fn start(python: &Path, script: &str) -> Peer {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(script);
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Peer { child, to, from }
    }

    /// Gives the peer a job and answers its look-ups from the zone until it is done.
    pub(crate) fn ask(&mut self, zone: &MemoryZone, job: &Value) -> Value {
        writeln!(self.to, "{job}").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.from.read_line(&mut line).unwrap() > 0, "the peer ended at {job}");
            let said: Value = serde_json::from_str(&line).unwrap();
            let Some([name, kind]) = said["lookup"].as_array().map(Vec::as_slice) else { return said };
            let answer = answer(zone, name.as_str().unwrap(), kind.as_str().unwrap());
            writeln!(self.to, "{answer}").unwrap();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// `["records", [...]]`, `["nodata", []]`, `["noname", []]` or `["error", [...]]`.
fn answer(zone: &MemoryZone, name: &str, kind: &str) -> Value {
    let kind = RecordKind::ALL.into_iter().find(|known| known.to_string() == kind);
    let (Ok(name), Some(kind)) = (name.parse::<Name>(), kind) else { return json!(["noname", []]) };
    match now(zone.lookup(&name, kind)) {
        Err(DnsError::Timeout) => json!(["error", ["timeout"]]),
        Err(_) => json!(["error", ["servfail"]]),
        Ok(answer) => match answer.found {
            Found::NoName => json!(["noname", []]),
            Found::NoData => json!(["nodata", []]),
            Found::Records(records) => json!(["records", records.iter().map(show).collect::<Vec<_>>()]),
        },
    }
}

fn show(record: &Record) -> Value {
    match record {
        Record::A(ip) => json!(ip.to_string()),
        Record::Aaaa(ip) => json!(ip.to_string()),
        Record::Mx { preference, exchange } => json!([preference, exchange.to_string()]),
        Record::Cname(name) | Record::Ns(name) | Record::Ptr(name) => json!(name.to_string()),
        // Octets as the characters of the same number, so that JSON holds them.
        other => json!(other.text().unwrap_or_default().iter().copied().map(char::from).collect::<String>()),
    }
}

/// How many zones; ten times as many with POSTWRIGHT_LONG=1.
pub(crate) fn zones(short: u64) -> u64 {
    if std::env::var("POSTWRIGHT_LONG").is_ok_and(|value| value == "1") { short * 10 } else { short }
}

/// Chance, the same on every run.
pub(crate) struct Dice(pub(crate) SeededEntropy);

impl Dice {
    pub(crate) fn below(&self, n: u64) -> usize {
        usize::try_from(self.0.below(n)).unwrap()
    }

    pub(crate) fn pick<'t>(&self, list: &[&'t str]) -> &'t str {
        list[self.below(list.len() as u64)]
    }
}
