//! What a process and its children have used of the processors, as `/proc` tells it.
//!
//! Not here: other systems than Linux; there the figure is missing, never zero.

use std::fs;
use std::time::Duration;

/// Ticks a second in `/proc`: 100 on every Linux that user space sees.
const TICKS: u64 = 100;

/// User and system time of a process, of its living descendants, and of the dead ones that were waited for.
pub(super) fn used(pid: u32) -> Option<Duration> {
    let all: Vec<Stat> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            Stat::read(name.to_str()?.parse().ok()?)
        })
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|stat| stat.parent == parent).map(|stat| stat.pid));
        next += 1;
    }
    let ticks: u64 = all.iter().filter(|stat| family.contains(&stat.pid)).map(|stat| stat.ticks).sum();
    all.iter().any(|stat| stat.pid == pid).then(|| Duration::from_millis(ticks * 1000 / TICKS))
}

struct Stat {
    pid: u32,
    parent: u32,
    ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Stat> {
        Stat::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// proc(5): behind the name in brackets come state, parent, and as the 14th to 17th field utime, stime, cutime,
    /// cstime.
    fn parse(pid: u32, text: &str) -> Option<Stat> {
        let (_, behind) = text.rsplit_once(')')?;
        let fields: Vec<&str> = behind.split_whitespace().collect();
        let parent = fields.get(1)?.parse().ok()?;
        let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(Stat { pid, parent, ticks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_behind_a_name_with_brackets_are_read() {
        let text = "7 (a) b) S 3 7 7 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 99 5 6";
        let stat = Stat::parse(7, text).unwrap();
        assert_eq!((stat.parent, stat.ticks), (3, 100));
    }

    #[test]
    fn we_have_used_some() {
        assert!(used(std::process::id()).is_some());
        assert!(used(u32::MAX).is_none());
    }
}
