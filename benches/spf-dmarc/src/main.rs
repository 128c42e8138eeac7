//! SPF and DMARC verdicts, and all that is found out about a message: ours and mail-auth 0.13.3, over the same zone in
//! memory, answers asserted.
//!
//! mail-auth knows DNS in memory only through its caches of parsed records. So each case is run twice. `CASE`: its cache
//! holds text and parses it when asked, which is the work that a look-up really costs it, and ours reads records each
//! time. `CASE-remembered`: its cache was filled with parsed records beforehand, as it is when a domain comes again within
//! the time to live, and ours has an `spf::Memory` that saw the records before. Both parse the message's header for its
//! `From`. Nothing asks a network.
//!
//! Prints `name<TAB>ours<TAB>peer<TAB>peer's name<TAB>unit`; everything else begins with `#`. `--quick` takes fewer
//! rounds, `--list` names what `--only NAME` runs alone, for callgrind.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "this is a stop-watch")]

mod ours;
mod theirs;
mod zone;

use std::hint::black_box;
use std::net::IpAddr;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use ours::Ours;
use theirs::Theirs;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The last network of the last of five records matches.
    SpfGoogle,
    /// The last network of the second record matches.
    SpfOutlook,
    /// SPF passed for the author domain itself.
    Dmarc,
    /// SPF, DMARC and the field of a message.
    Check,
    /// The same of a message signed with RSA-2048: SPF, DKIM, DMARC and the field.
    Signed,
}

impl What {
    const ALL: [What; 5] = [What::SpfGoogle, What::SpfOutlook, What::Dmarc, What::Check, What::Signed];

    fn name(self) -> &'static str {
        match self {
            What::SpfGoogle => "spf-google",
            What::SpfOutlook => "spf-outlook",
            What::Dmarc => "dmarc",
            What::Check => "check",
            What::Signed => "signed",
        }
    }

    /// The client and the reverse-path.
    fn sender(self) -> (IpAddr, &'static str) {
        match self {
            What::SpfOutlook => ("2a01:111:f403:8000::1".parse().expect("an address"), "joe@o.test"),
            _ => ([130, 211, 1, 1].into(), "joe@g.test"),
        }
    }
}

#[derive(Clone, Copy)]
struct Case {
    what: What,
    remembered: bool,
}

impl Case {
    fn all() -> impl Iterator<Item = Case> {
        let cases = What::ALL.map(|what| [false, true].map(|remembered| Case { what, remembered }));
        cases.into_iter().flatten()
    }

    fn name(self) -> String {
        format!("{}{}", self.what.name(), if self.remembered { "-remembered" } else { "" })
    }
}

#[derive(Clone, Copy)]
enum Who {
    Ours,
    Theirs,
}

impl Who {
    const ALL: [Who; 2] = [Who::Ours, Who::Theirs];

    fn name(self) -> &'static str {
        match self {
            Who::Ours => "ours",
            Who::Theirs => "mail-auth",
        }
    }
}

/// The message without and with its signature.
pub struct Mail {
    pub plain: Vec<u8>,
    pub signed: Vec<u8>,
}

impl Mail {
    fn octets(&self, what: What) -> &[u8] {
        if what == What::Signed { &self.signed } else { &self.plain }
    }
}

pub fn now<F: Future>(work: F) -> F::Output {
    match std::pin::pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a look-up left memory"),
    }
}

struct Bench {
    ours: Ours,
    theirs: Theirs,
}

impl Bench {
    fn new() -> Bench {
        let (mail, keys) = ours::signed();
        Bench { ours: Ours::new(&mail, &keys), theirs: Theirs::new(mail, &keys) }
    }

    #[inline(never)]
    fn measured(&self, who: Who, case: Case) {
        match who {
            Who::Ours => self.ours.run(case.what, case.remembered),
            Who::Theirs => self.theirs.run(case.what, case.remembered),
        }
    }

    /// Nanoseconds (the best of many rounds, by turns) of one verdict by each.
    fn times(&self, case: Case, rounds: u32) -> [f64; 2] {
        let mut best = [f64::MAX; 2];
        for _ in 0..rounds {
            for (who, best) in Who::ALL.into_iter().zip(&mut best) {
                let start = Instant::now();
                (0..TIMES).for_each(|_| self.measured(black_box(who), black_box(case)));
                *best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES));
            }
        }
        best
    }

    fn allocations(&self, who: Who, case: Case) -> u64 {
        self.measured(who, case);
        allocation_counter::measure(|| self.measured(who, case)).count_total
    }
}

const TIMES: u32 = 200;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _inside = runtime.enter();
    let bench = Bench::new();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let runs = || {
        Case::all()
            .flat_map(|case| Who::ALL.map(|who| (format!("{}:{}", case.name(), who.name()), who, case)))
    };
    match *words {
        ["--list"] => runs().for_each(|(name, ..)| println!("{name}\t{TIMES}")),
        ["--only", wanted] => {
            let (_, who, case) = runs().find(|(name, ..)| name == wanted).expect("a name of --list");
            // The first time fills what is remembered.
            (0..TIMES).for_each(|_| bench.measured(who, case));
        }
        [] => table(&bench, 100),
        ["--quick"] => table(&bench, 10),
        _ => panic!("usage: [--quick | --list | --only CASE:WHO]"),
    }
}

fn table(bench: &Bench, rounds: u32) {
    for case in Case::all() {
        let name = case.name();
        let [ours, theirs] = bench.times(case, rounds);
        println!("{name}\t{ours:.0}\t{theirs:.0}\tmail-auth 0.13.3\tns");
        let [ours, theirs] = Who::ALL.map(|who| bench.allocations(who, case));
        println!("{name}\t{ours}\t{theirs}\tmail-auth 0.13.3\tallocations");
    }
}
