//! Strangers are asked to come again: [`Greylist`].
//!
//! Invariant: at most `entries` are kept, each for a bounded time; whoever comes again as a mail server does gets
//! through, and its network is known from then on. A restart forgets nothing if there is a file.
//!
//! Standards: RFC 6647 2.1 (the tuple), 4 (times), 5 (451).
//!
//! Not here: who is exempt (those who may relay, those who logged in: the listener).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postwright::core::{Mailbox, ReversePath, Timestamp};

use crate::config;

/// What is known, by what it is about.
#[derive(Debug)]
pub(crate) struct Greylist {
    delay: Duration,
    window: Duration,
    remember: Duration,
    entries: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: BTreeMap<Key, Seen>,
    /// The same by the time that they are forgotten.
    ends: BTreeSet<(Timestamp, Key)>,
}

/// A network that passed, or one with a sender and a recipient that is asked to come again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    network: IpAddr,
    /// Empty for a network that passed.
    envelope: Box<str>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    since: Timestamp,
    ends: Timestamp,
}

impl Greylist {
    pub(crate) fn new(config: &config::Greylist) -> Greylist {
        Greylist {
            delay: config.delay.time(),
            window: config.window.time(),
            remember: config.remember.time(),
            entries: config.entries.size(),
            state: Mutex::default(),
        }
    }

    /// May this come in? Otherwise how long until it may.
    pub(crate) fn admit(
        &self,
        ip: IpAddr,
        sender: &ReversePath,
        recipient: &Mailbox,
        now: Timestamp,
    ) -> Result<(), Duration> {
        let network = network(ip);
        let mut state = self.state();
        state.forget(now);
        let known = Key { network, envelope: "".into() };
        if state.seen.contains_key(&known) {
            self.put(&mut state, known, now, now + self.remember);
            return Ok(());
        }
        // Folded: some senders change the case of what they say.
        let envelope = format!("{sender} {recipient}").to_ascii_lowercase();
        let key = Key { network, envelope: envelope.into() };
        let Some(seen) = state.seen.get(&key).copied() else {
            self.put(&mut state, key, now, now + self.window);
            return Err(self.delay);
        };
        let waited = now.since(seen.since);
        if waited < self.delay {
            return Err(self.delay.saturating_sub(waited));
        }
        state.remove(&key);
        self.put(&mut state, known, now, now + self.remember);
        Ok(())
    }

    fn put(&self, state: &mut State, key: Key, since: Timestamp, ends: Timestamp) {
        state.remove(&key);
        while state.seen.len() >= self.entries {
            let Some((_, oldest)) = state.ends.first().cloned() else { break };
            state.remove(&oldest);
        }
        state.ends.insert((ends, key.clone()));
        state.seen.insert(key, Seen { since, ends });
    }

    /// Writes everything to a file, whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let mut text = String::new();
        for (key, seen) in &self.state().seen {
            let (since, ends) = (seen.since.millis(), seen.ends.millis());
            text.push_str(&format!("{since} {ends} {} {}\n", key.network, key.envelope));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }

    /// Reads what [`Greylist::save`] wrote; a line that makes no sense is left out. No file is an empty one.
    pub(crate) fn load(&self, path: &Path, now: Timestamp) -> io::Result<()> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut state = self.state();
        for line in text.lines() {
            let Some((key, seen)) = parse(line) else { continue };
            // A clock that stood wrong when it was written must not keep it for ever.
            self.put(&mut state, key, seen.since.min(now), seen.ends.min(now + self.remember));
        }
        state.forget(now);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(line: &str) -> Option<(Key, Seen)> {
    let mut words = line.splitn(4, ' ');
    let mut time = || words.next()?.parse().ok().map(Timestamp::from_millis);
    let (since, ends) = (time()?, time()?);
    let network = words.next()?.parse().ok()?;
    Some((Key { network, envelope: words.next()?.into() }, Seen { since, ends }))
}

impl State {
    fn remove(&mut self, key: &Key) {
        if let Some(seen) = self.seen.remove(key) {
            self.ends.remove(&(seen.ends, key.clone()));
        }
    }

    fn forget(&mut self, now: Timestamp) {
        while let Some((ends, key)) = self.ends.first().cloned()
            && ends <= now
        {
            self.remove(&key);
        }
    }
}

/// Big senders come again from a neighbour: IPv4 by /24, IPv6 by /64.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() & !0xff).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greylist(entries: &str) -> Greylist {
        Greylist::new(&toml::from_str(&format!("enabled = true\n{entries}")).unwrap())
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1_800_000_000 + secs)
    }

    fn ask(list: &Greylist, ip: &str, from: &str, secs: u64) -> Result<(), u64> {
        let path = ReversePath::Mailbox(from.parse().unwrap());
        let to = "joe@example.org".parse().unwrap();
        list.admit(ip.parse().unwrap(), &path, &to, at(secs)).map_err(|left| left.as_secs())
    }

    const DAY: u64 = 86_400;

    #[test]
    fn whoever_comes_again_gets_through_and_is_known() {
        let list = greylist("");
        assert_eq!(ask(&list, "192.0.2.1", "a@x.example", 0), Err(300));
        assert_eq!(ask(&list, "192.0.2.1", "A@X.example", 100), Err(200), "too early; its time runs on");
        assert_eq!(ask(&list, "192.0.2.1", "b@x.example", 300), Err(300), "another sender");
        assert_eq!(ask(&list, "192.0.2.77", "a@x.example", 301), Ok(()), "a neighbour of the same network");
        assert_eq!(ask(&list, "192.0.2.1", "c@y.example", 302), Ok(()), "known now");
        assert_eq!(ask(&list, "192.0.3.1", "c@y.example", 302), Err(300));
        assert_eq!(
            ask(&list, "192.0.2.1", "d@y.example", 35 * DAY),
            Ok(()),
            "remembered, and anew from here"
        );
        assert_eq!(ask(&list, "192.0.2.1", "d@y.example", 70 * DAY), Ok(()));
        assert_eq!(ask(&list, "192.0.2.1", "d@y.example", 107 * DAY), Err(300), "forgotten");
        // A first visit is forgotten sooner.
        assert_eq!(ask(&list, "2001:db8::1", "a@x.example", 108 * DAY), Err(300));
        assert_eq!(ask(&list, "2001:db8::2", "a@x.example", 110 * DAY), Err(300));
        assert_eq!(ask(&list, "2001:db8::3", "a@x.example", 110 * DAY + 300), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_survives_a_restart() {
        let list = greylist("entries = 100");
        assert_eq!(ask(&list, "192.0.2.1", "a@x.example", 0), Err(300));
        assert_eq!(ask(&list, "192.0.2.1", "a@x.example", 300), Ok(()));
        for n in 0..1000 {
            ask(&list, "198.51.100.1", &format!("u{n}@x.example"), 301 + n).unwrap_err();
            let state = list.state();
            assert!(state.seen.len() <= 100 && state.seen.len() == state.ends.len());
        }
        assert_eq!(ask(&list, "192.0.2.1", "z@x.example", 1400), Ok(()), "what lasts longer goes last");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("greylist");
        list.save(&path).unwrap();
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "garbage\n1 2 x\n").unwrap();
        let again = greylist("entries = 100");
        again.load(&folder.path().join("none"), at(1400)).unwrap();
        again.load(&path, at(1400)).unwrap();
        assert_eq!(ask(&again, "192.0.2.1", "y@x.example", 1400), Ok(()));
        assert_eq!(ask(&again, "198.51.100.2", "u999@x.example", 1700), Ok(()), "its wait went on meanwhile");
        let later = greylist("");
        later.load(&path, at(200 * DAY)).unwrap();
        assert!(later.state().seen.is_empty(), "all of it is out of date");
    }
}
