//! `check_host()`: evaluating records, with an exact budget.
//!
//! Invariant: includes and redirects are a loop over a stack of frames, never recursion; every term that needs
//! DNS is counted before its look-up, so no more than the budget is ever asked of the resolver.
//!
//! Standards: RFC 7208 sections 4 to 7; RFC 8616 section 4.
//!
//! Not here: the grammar (record.rs, term.rs), the macro language (macros.rs).

use std::net::IpAddr;

use postwright_core::{Answer, Domain, Found, Name, Record as Rr, RecordKind, Resolver};

use super::macros::{self, Place, Scope};
use super::record::Record;
use super::term::{DualCidr, Mechanism, Qualifier, TermKind};
use super::{Event, Identity, Problem, SpfQuery, SpfResult, Step, Verdict};

/// Octets that are kept while a domain is expanded: more than two names, so that cutting the left side of a
/// name that is too long stays exact.
const NAME_WINDOW: usize = 1024;

/// Runs one check.
pub(super) async fn run(resolver: &dyn Resolver, query: &SpfQuery<'_>) -> SpfResult {
    let (local, raw_domain) = query.sender();
    let mut result = SpfResult {
        verdict: Verdict::None,
        identity: query.identity(),
        domain: String::new(),
        explanation: None,
        matched: None,
        lookups: 0,
        void_lookups: 0,
        problem: None,
        trace: Vec::new(),
    };
    let Some(domain) = checkable(raw_domain) else {
        result.domain = raw_domain.to_owned();
        result.problem = Some(Problem::NoDomain(raw_domain.chars().take(255).collect()));
        return result;
    };
    let helo = match query.identity() {
        Identity::Helo => raw_domain,
        Identity::MailFrom => query.helo,
    };
    domain.as_str().clone_into(&mut result.domain);
    let mut checker = Checker {
        resolver,
        query,
        local,
        // The macro %{o} shows the domain as the client wrote it, unless that cannot stand in a DNS name.
        sender_domain: if raw_domain.is_ascii() { raw_domain } else { &result.domain },
        helo,
        lookups: 0,
        void_lookups: 0,
        validated: None,
        trace: Vec::new(),
    };
    let end = checker.evaluate(&domain).await;
    let (verdict, matched, explanation) = match end {
        Ok(end) => {
            let explanation = match &end.fail {
                Some(frame) => checker.explain(frame).await,
                None => None,
            };
            (end.verdict, end.matched, explanation)
        }
        Err(stop) => {
            checker.note(0, &domain, || Event::Stopped(stop.problem.to_string()));
            result.problem = Some(stop.problem);
            (stop.verdict, None, None)
        }
    };
    (result.lookups, result.void_lookups) = (checker.lookups, checker.void_lookups);
    result.trace = checker.trace;
    (result.verdict, result.matched, result.explanation) = (verdict, matched, explanation);
    result
}

/// The domain of an identity, if DNS could know it: a name of two labels or more (RFC 7208 4.3).
fn checkable(raw: &str) -> Option<Name> {
    let name =
        if raw.is_ascii() { raw.parse::<Name>().ok()? } else { Name::from(&raw.parse::<Domain>().ok()?) };
    (name.labels().count() > 1).then_some(name)
}

/// The character-strings of a TXT record as one text; of one string, without a copy.
fn joined(mut strings: Vec<Box<[u8]>>) -> Vec<u8> {
    match (strings.pop(), strings.is_empty()) {
        (Some(only), true) => only.into_vec(),
        (Some(last), false) => {
            strings.push(last);
            strings.concat()
        }
        (None, _) => Vec::new(),
    }
}

/// A check that cannot go on.
struct Stop {
    verdict: Verdict,
    problem: Problem,
}

fn permanent(problem: Problem) -> Stop {
    Stop { verdict: Verdict::PermError, problem }
}

/// A record being read.
struct Frame {
    domain: Name,
    record: Record,
    /// Which term comes next.
    at: usize,
    /// The include that led here: its qualifier and its text.
    entered_by: Option<(Qualifier, String)>,
}

/// How the outermost record ended.
struct End {
    verdict: Verdict,
    matched: Option<String>,
    /// The record to take the explanation from.
    fail: Option<Frame>,
}

/// What became of a term's domain-spec.
enum Target {
    Name(Name),
    /// Not a DNS name after expansion (RFC 7208 4.8).
    Malformed,
    /// Would hold a non-ASCII local part: the term matches nothing (RFC 8616 4).
    Unmatchable,
}

struct Checker<'c> {
    resolver: &'c dyn Resolver,
    query: &'c SpfQuery<'c>,
    local: &'c str,
    sender_domain: &'c str,
    helo: &'c str,
    lookups: u32,
    void_lookups: u32,
    /// The validated names of the client, once looked up.
    validated: Option<Vec<Name>>,
    trace: Vec<Step>,
}

impl Checker<'_> {
    async fn evaluate(&mut self, domain: &Name) -> Result<End, Stop> {
        let mut frame = match self.record_of(domain).await? {
            Some(record) => Frame { domain: domain.clone(), record, at: 0, entered_by: None },
            None => {
                let problem = Problem::NoRecord(domain.clone());
                return Err(Stop { verdict: Verdict::None, problem });
            }
        };
        let mut outer: Vec<Frame> = Vec::new();
        self.note(0, &frame.domain, || Event::Record(frame.record.as_str().to_owned()));
        loop {
            let depth = outer.len();
            // Most terms are networks of others.
            while !self.query.traced
                && let Some(TermKind::Directive(_, mechanism)) = frame.record.kind(frame.at)
                && self.matches_plainly(mechanism) == Some(false)
            {
                frame.at += 1;
            }
            let settled = match frame.record.term(frame.at) {
                Some(term) => {
                    frame.at += 1;
                    let TermKind::Directive(qualifier, mechanism) = term.kind else { continue };
                    if let Mechanism::Include(spec) = mechanism {
                        let text = term.text.to_owned();
                        if let Some(inner) = self.enter(&frame, depth, &text, spec).await? {
                            let entered_by = Some((qualifier, text));
                            outer.push(std::mem::replace(&mut frame, Frame { entered_by, ..inner }));
                        }
                        continue;
                    }
                    let matched = match self.matches_plainly(mechanism) {
                        Some(matched) => {
                            let event = || Event::Term { term: term.text.to_owned(), target: None, matched };
                            self.note(depth, &frame.domain, event);
                            matched
                        }
                        None => self.matches(&frame, depth, term.text, mechanism).await?,
                    };
                    if !matched {
                        continue;
                    }
                    (Verdict::from(qualifier), Some(term.text.to_owned()))
                }
                None => match frame.record.redirect() {
                    Some(spec) => {
                        let inner = self.redirect(&frame, depth, spec).await?;
                        frame = Frame { entered_by: frame.entered_by, ..inner };
                        continue;
                    }
                    None => (Verdict::Neutral, None),
                },
            };
            match self.settle(&mut frame, &mut outer, settled) {
                Some((verdict, matched)) => {
                    let fail = (verdict == Verdict::Fail).then_some(frame);
                    return Ok(End { verdict, matched, fail });
                }
                None => continue,
            }
        }
    }

    /// A record has its verdict: either that is the end, or the including records hear of it.
    fn settle(
        &mut self,
        frame: &mut Frame,
        outer: &mut Vec<Frame>,
        mut settled: (Verdict, Option<String>),
    ) -> Option<(Verdict, Option<String>)> {
        loop {
            let Some(including) = outer.pop() else { return Some(settled) };
            let inner = std::mem::replace(frame, including);
            let Some((qualifier, term)) = inner.entered_by else { return Some(settled) };
            let matched = settled.0 == Verdict::Pass;
            self.note(outer.len(), &frame.domain, || Event::Term {
                term: term.clone(),
                target: Some(inner.domain.to_string()),
                matched,
            });
            if !matched {
                return None;
            }
            settled = (qualifier.into(), Some(term));
        }
    }

    /// `include` (RFC 7208 5.2). `None`: the term matches nothing.
    async fn enter(
        &mut self,
        of: &Frame,
        depth: usize,
        term: &str,
        spec: &str,
    ) -> Result<Option<Frame>, Stop> {
        self.count(&of.domain, term)?;
        let target = match self.target(of, Some(spec)).await? {
            Target::Unmatchable => return Ok(None),
            Target::Malformed => return Err(permanent(Problem::Dangling { term: term.to_owned() })),
            Target::Name(name) => name,
        };
        self.follow(of, depth, term, target).await.map(Some)
    }

    /// `redirect` (RFC 7208 6.1).
    async fn redirect(&mut self, of: &Frame, depth: usize, spec: &str) -> Result<Frame, Stop> {
        let term = format!("redirect={spec}");
        self.count(&of.domain, &term)?;
        match self.target(of, Some(spec)).await? {
            Target::Name(name) => self.follow(of, depth, &term, name).await,
            _ => Err(permanent(Problem::Dangling { term })),
        }
    }

    async fn follow(&mut self, of: &Frame, depth: usize, term: &str, target: Name) -> Result<Frame, Stop> {
        self.note(depth, &of.domain, || Event::Enter { term: term.to_owned(), target: target.to_string() });
        let dangling = || permanent(Problem::Dangling { term: term.to_owned() });
        let record = self.record_of(&target).await?.ok_or_else(dangling)?;
        let inner = if term.starts_with("redirect=") { depth } else { depth + 1 };
        self.note(inner, &target, || Event::Record(record.as_str().to_owned()));
        Ok(Frame { domain: target, record, at: 0, entered_by: None })
    }

    /// Selects a domain's record (RFC 7208 4.4, 4.5).
    async fn record_of(&mut self, domain: &Name) -> Result<Option<Record>, Stop> {
        let Found::Records(records) = self.ask(domain, RecordKind::Txt).await?.found else { return Ok(None) };
        let mut claim = None;
        let mut count = 0_usize;
        for record in records {
            let Rr::Txt(strings) = record else { continue };
            let text = joined(strings);
            if Record::is_claimed_by(&text) {
                count = count.saturating_add(1);
                claim = Some(text);
            }
        }
        match (claim, count) {
            (None, _) => Ok(None),
            (Some(text), 1) => Record::parse(text)
                .map(Some)
                .map_err(|error| permanent(Problem::Syntax { domain: domain.clone(), error })),
            (Some(_), count) => Err(permanent(Problem::SeveralRecords { domain: domain.clone(), count })),
        }
    }

    /// Whether a mechanism matches that needs nothing but the client's address.
    fn matches_plainly(&self, mechanism: Mechanism<'_>) -> Option<bool> {
        let ip = self.query.ip;
        match mechanism {
            Mechanism::All => Some(true),
            Mechanism::Ip4(net, bits) => Some(DualCidr { v4: bits, v6: 128 }.matches(ip, IpAddr::V4(net))),
            Mechanism::Ip6(net, bits) => Some(DualCidr { v4: 32, v6: bits }.matches(ip, IpAddr::V6(net))),
            _ => None,
        }
    }

    /// Whether a mechanism that asks DNS matches (RFC 7208 5); `include` is none of them.
    async fn matches(
        &mut self,
        frame: &Frame,
        depth: usize,
        term: &str,
        mechanism: Mechanism<'_>,
    ) -> Result<bool, Stop> {
        let spec = match mechanism {
            Mechanism::A(spec, _) | Mechanism::Mx(spec, _) | Mechanism::Ptr(spec) => spec,
            Mechanism::Exists(spec) | Mechanism::Include(spec) => Some(spec),
            Mechanism::All | Mechanism::Ip4(..) | Mechanism::Ip6(..) => None,
        };
        self.count(&frame.domain, term)?;
        let target = self.target(frame, spec).await?;
        let matched = match (&target, mechanism) {
            (Target::Malformed | Target::Unmatchable, _) => false,
            (Target::Name(name), Mechanism::A(_, cidr)) => self.has_address(name, cidr).await?,
            (Target::Name(name), Mechanism::Mx(_, cidr)) => self.has_exchange(name, cidr).await?,
            (Target::Name(name), Mechanism::Ptr(_)) => {
                self.best_validated(name).await?.is_some_and(|(_, w)| w)
            }
            (Target::Name(name), _) => !self.ask_counted(name, RecordKind::A).await?.records().is_empty(),
        };
        self.note(depth, &frame.domain, || Event::Term {
            term: term.to_owned(),
            target: match &target {
                Target::Name(name) => Some(name.to_string()),
                _ => None,
            },
            matched,
        });
        Ok(matched)
    }

    async fn has_address(&mut self, name: &Name, cidr: DualCidr) -> Result<bool, Stop> {
        let answer = self.ask_counted(name, self.address_kind()).await?;
        let ip = self.query.ip;
        Ok(answer.records().iter().filter_map(Rr::address).any(|address| cidr.matches(ip, address)))
    }

    async fn has_exchange(&mut self, name: &Name, cidr: DualCidr) -> Result<bool, Stop> {
        let answer = self.ask_counted(name, RecordKind::Mx).await?;
        let (count, limit) = (answer.records().len(), self.query.limits.spf_mx_hosts);
        if count > limit {
            return Err(permanent(Problem::TooManyHosts { limit, name: name.clone(), count }));
        }
        let hosts = answer.records().iter().filter_map(|record| match record {
            Rr::Mx { preference, exchange } => Some((*preference, exchange)),
            _ => None,
        });
        let mut hosts: Vec<(u16, &Name)> = hosts.collect();
        hosts.sort_by_key(|(preference, _)| *preference);
        for (_, exchange) in hosts {
            // A null MX (RFC 7505) names no host.
            if !exchange.is_root() && self.has_address(exchange, cidr).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The validated name of the client that fits a domain best (RFC 7208 5.5, 7.3), and whether it lies within it.
    async fn best_validated(&mut self, domain: &Name) -> Result<Option<(Name, bool)>, Stop> {
        if self.validated.is_none() {
            self.validated = Some(self.validate_names().await?);
        }
        let names = self.validated.as_deref().unwrap_or_default();
        let same = names.iter().find(|name| *name == domain);
        let within = same.or_else(|| names.iter().find(|name| name.is_within(domain)));
        Ok(match within {
            Some(name) => Some((name.clone(), true)),
            None => names.first().map(|name| (name.clone(), false)),
        })
    }

    async fn validate_names(&mut self) -> Result<Vec<Name>, Stop> {
        let mut valid = Vec::new();
        let reverse = Name::reverse(self.query.ip);
        // Errors here mean "no match", never a temperror (RFC 7208 5.5).
        let Ok(answer) = self.resolver.lookup(&reverse, RecordKind::Ptr).await else { return Ok(valid) };
        self.count_void(&answer, &reverse, RecordKind::Ptr)?;
        for record in answer.records().iter().take(self.query.limits.spf_ptr_names) {
            let Rr::Ptr(name) = record else { continue };
            let Ok(addresses) = self.resolver.lookup(name, self.address_kind()).await else { continue };
            if addresses.records().iter().filter_map(Rr::address).any(|address| address == self.query.ip) {
                valid.push(name.clone());
            }
        }
        Ok(valid)
    }

    /// The domain of a term: the frame's own, or a domain-spec after expansion (RFC 7208 4.8).
    async fn target(&mut self, frame: &Frame, spec: Option<&str>) -> Result<Target, Stop> {
        let Some(spec) = spec else { return Ok(Target::Name(frame.domain.clone())) };
        if !spec.contains('%') {
            return Ok(self.to_target(spec));
        }
        if !self.local.is_ascii() && macros::uses_local_part(spec) {
            return Ok(Target::Unmatchable);
        }
        let mut expanded = String::new();
        let validated = self.validated_for(frame, spec, Place::Term).await?;
        let scope = self.scope(frame, validated.as_ref());
        if scope.expand(spec, Place::Term, NAME_WINDOW, &mut expanded).is_err() {
            return Ok(Target::Malformed);
        }
        Ok(self.to_target(&expanded))
    }

    /// Cuts labels off the left of a name that is too long (RFC 7208 7.3).
    fn to_target(&self, text: &str) -> Target {
        let mut text = text.strip_suffix('.').unwrap_or(text);
        while text.len() > Name::MAX {
            match text.split_once('.') {
                Some((_, rest)) => text = rest,
                None => return Target::Malformed,
            }
        }
        text.parse().map_or(Target::Malformed, Target::Name)
    }

    async fn validated_for(&mut self, frame: &Frame, text: &str, place: Place) -> Result<Option<Name>, Stop> {
        if !macros::needs_validated_name(text, place) {
            return Ok(None);
        }
        Ok(self.best_validated(&frame.domain).await?.map(|(name, _)| name))
    }

    fn scope<'s>(&'s self, frame: &'s Frame, validated: Option<&'s Name>) -> Scope<'s> {
        Scope {
            local: self.local,
            sender_domain: self.sender_domain,
            domain: frame.domain.as_str(),
            ip: self.query.ip,
            helo: self.helo,
            validated: validated.map(Name::as_str),
            receiver: self.query.receiver,
            now_secs: self.query.now.secs(),
        }
    }

    /// The domain's own words on a fail (RFC 7208 6.2). Any trouble means that there are none.
    async fn explain(&mut self, frame: &Frame) -> Option<String> {
        let spec = frame.record.explanation()?;
        let Ok(Target::Name(name)) = self.target(frame, Some(spec)).await else { return None };
        let answer = self.resolver.lookup(&name, RecordKind::Txt).await.ok()?;
        let [record] = answer.records() else { return None };
        let text = String::from_utf8(record.text()?).ok().filter(|text| text.is_ascii())?;
        macros::check(&text, Place::Explanation).ok()?;
        let validated = self.validated_for(frame, &text, Place::Explanation).await.ok()?;
        let mut out = String::new();
        let limit = self.query.limits.spf_explanation;
        let scope = self.scope(frame, validated.as_ref());
        let dropped = scope.expand(&text, Place::Explanation, limit, &mut out).ok()?;
        // The identities are raw: what they hold must not break a reply or a header.
        (!dropped).then(|| out.replace(|c: char| c.is_control(), "?"))
    }

    fn address_kind(&self) -> RecordKind {
        if self.query.ip.is_ipv4() { RecordKind::A } else { RecordKind::Aaaa }
    }

    /// Counts a term that needs DNS, before its look-up.
    fn count(&mut self, domain: &Name, term: &str) -> Result<(), Stop> {
        self.lookups = self.lookups.saturating_add(1);
        let limit = self.query.limits.spf_terms;
        if self.lookups <= limit {
            return Ok(());
        }
        let term = term.chars().take(255).collect();
        Err(permanent(Problem::TooManyLookups { limit, domain: domain.clone(), term }))
    }

    async fn ask(&mut self, name: &Name, kind: RecordKind) -> Result<Answer, Stop> {
        self.resolver.lookup(name, kind).await.map_err(|error| Stop {
            verdict: Verdict::TempError,
            problem: Problem::Dns { name: name.clone(), kind, error },
        })
    }

    /// Asks for a term; finding nothing counts.
    async fn ask_counted(&mut self, name: &Name, kind: RecordKind) -> Result<Answer, Stop> {
        let answer = self.ask(name, kind).await?;
        self.count_void(&answer, name, kind)?;
        Ok(answer)
    }

    fn count_void(&mut self, answer: &Answer, name: &Name, kind: RecordKind) -> Result<(), Stop> {
        if !answer.records().is_empty() {
            return Ok(());
        }
        self.void_lookups = self.void_lookups.saturating_add(1);
        let limit = self.query.limits.spf_void_lookups;
        if self.void_lookups <= limit {
            return Ok(());
        }
        Err(permanent(Problem::TooManyVoidLookups { limit, name: name.clone(), kind }))
    }

    fn note(&mut self, depth: usize, domain: &Name, event: impl FnOnce() -> Event) {
        if self.query.traced && self.trace.len() < self.query.limits.spf_trace_steps {
            let (lookups, void_lookups) = (self.lookups, self.void_lookups);
            self.trace.push(Step {
                depth,
                domain: domain.to_string(),
                event: event(),
                lookups,
                void_lookups,
            });
        }
    }
}
