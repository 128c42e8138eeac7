//! `check_host()`: evaluating records, with an exact budget.
//!
//! Invariant: includes and redirects are a loop over a stack of frames, never recursion; every term that needs
//! DNS is counted before its look-up, so no more than the budget is ever asked of the resolver.
//!
//! Standards: RFC 7208 sections 4 to 7; RFC 8616 section 4.
//!
//! Not here: the grammar (record.rs, term.rs), the macro language (macros.rs).

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use postwright_core::{Answer, Domain, Name, Record as Rr, RecordKind, Resolver};

use super::macros::{self, Place, Scope};
use super::network::DualCidr;
use super::record::{self, Directive, Record, Spec};
use super::term::{Mechanism, Qualifier};
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
    match end {
        Ok(End { frame, matched }) => {
            result.verdict = matched.map_or(Verdict::Neutral, Verdict::from);
            if result.verdict == Verdict::Fail {
                result.explanation = checker.explain(&frame).await;
            }
            result.matched = matched.map(|_| frame.term().to_owned());
        }
        Err(stop) => {
            checker.note(0, &domain, || Event::Stopped(stop.problem.to_string()));
            (result.verdict, result.problem) = (stop.verdict, Some(stop.problem));
        }
    }
    (result.lookups, result.void_lookups) = (checker.lookups, checker.void_lookups);
    result.trace = checker.trace;
    result
}

/// The domain of an identity, if DNS could know it: a name of two labels or more (RFC 7208 4.3).
fn checkable(raw: &str) -> Option<Name> {
    let name =
        if raw.is_ascii() { raw.parse::<Name>().ok()? } else { Name::from(&raw.parse::<Domain>().ok()?) };
    (name.labels().count() > 1).then_some(name)
}

/// A check that cannot go on.
struct Stop {
    verdict: Verdict,
    problem: Problem,
}

fn permanent(problem: Problem) -> Stop {
    Stop { verdict: Verdict::PermError, problem }
}

/// A frame's `include` or `redirect` leads nowhere.
fn dangling(frame: &Frame) -> Stop {
    permanent(Problem::Dangling { term: frame.term().to_owned() })
}

/// A record being evaluated.
struct Frame {
    domain: Name,
    record: Arc<Record>,
    /// Which directive comes next.
    next: usize,
    /// Where the term stands that is being evaluated.
    place: Range<usize>,
}

impl Frame {
    fn term(&self) -> &str {
        self.record.word(&self.place)
    }

    /// Goes on to the next directive, past those that a `client` is known not to match. Whether there is one.
    fn advance(&mut self, client: Option<IpAddr>) -> bool {
        let misses = |at: &Directive| client.is_some_and(|ip| at.mechanism.holds(ip) == Some(false));
        let rest = self.record.directives().get(self.next..).unwrap_or_default();
        let passed = rest.iter().take_while(|directive| misses(directive)).count();
        let Some(directive) = rest.get(passed) else { return false };
        self.place = directive.place.clone();
        self.next += passed + 1;
        true
    }

    /// The directive that is being evaluated.
    fn directive(&self) -> Option<&Directive> {
        self.record.directives().get(self.next.checked_sub(1)?)
    }
}

/// A record whose `include` is being followed.
struct Including {
    frame: Frame,
    qualifier: Qualifier,
}

/// How the outermost record ended: with the match of its frame's term, or without one.
struct End {
    frame: Frame,
    matched: Option<Qualifier>,
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
        let Some(mut frame) = self.record_of(domain).await? else {
            return Err(Stop { verdict: Verdict::None, problem: Problem::NoRecord(domain.clone()) });
        };
        self.note_record(0, &frame);
        // A trace shows what did not match, too.
        let passable = (!self.query.traced).then_some(self.query.ip);
        let mut outer: Vec<Including> = Vec::new();
        'terms: loop {
            let depth = outer.len();
            let mut matched = None;
            if frame.advance(passable) {
                let Some(Directive { qualifier, mechanism, .. }) = frame.directive() else { continue };
                let qualifier = *qualifier;
                if let Mechanism::Include(spec) = mechanism {
                    if let Some(inner) = self.follow(&frame, depth, spec).await? {
                        self.note_record(depth + 1, &inner);
                        outer.push(Including { frame: std::mem::replace(&mut frame, inner), qualifier });
                    }
                    continue;
                }
                if !self.matches(&frame, depth, mechanism).await? {
                    continue;
                }
                matched = Some(qualifier);
            } else if let Some((place, spec)) = frame.record.redirect_at() {
                let spec = Spec::new(spec);
                frame.place = place;
                frame = self.follow(&frame, depth, &spec).await?.ok_or_else(|| dangling(&frame))?;
                self.note_record(depth, &frame);
                continue;
            }
            // The record has its verdict. Either that is the end, or the records around it hear of it.
            while let Some(including) = outer.pop() {
                let inner = std::mem::replace(&mut frame, including.frame);
                let passed = matched == Some(Qualifier::Pass);
                self.note_term(outer.len(), &frame, Some(&inner.domain), passed);
                if !passed {
                    continue 'terms;
                }
                matched = Some(including.qualifier);
            }
            return Ok(End { frame, matched });
        }
    }

    /// Enters the record that an `include` or a `redirect` leads to (RFC 7208 5.2, 6.1). `None`: there is no match.
    async fn follow(&mut self, of: &Frame, depth: usize, spec: &Spec) -> Result<Option<Frame>, Stop> {
        self.count(of)?;
        let target = match self.target(of, Some(spec)).await? {
            Target::Unmatchable => return Ok(None),
            Target::Malformed => return Err(dangling(of)),
            Target::Name(name) => name,
        };
        let event = || Event::Enter { term: of.term().to_owned(), target: target.to_string() };
        self.note(depth, &of.domain, event);
        self.record_of(&target).await?.ok_or_else(|| dangling(of)).map(Some)
    }

    /// Selects a domain's record (RFC 7208 4.4, 4.5).
    async fn record_of(&mut self, domain: &Name) -> Result<Option<Frame>, Stop> {
        let answer = self.ask(domain, RecordKind::Txt).await?;
        let texts = answer.records().iter().filter_map(Rr::text);
        let mut claims = texts.filter(|text| Record::is_claimed_by(text));
        let Some(text) = claims.next() else { return Ok(None) };
        let count = 1 + claims.count();
        if count > 1 {
            return Err(permanent(Problem::SeveralRecords { domain: domain.clone(), count }));
        }
        let record = match self.query.memory {
            Some(memory) => memory.read(domain, &text),
            None => Record::parse(text).map(Arc::new),
        };
        let record = record.map_err(|error| permanent(Problem::Syntax { domain: domain.clone(), error }))?;
        Ok(Some(Frame { domain: domain.clone(), record, next: 0, place: 0..0 }))
    }

    /// Whether a mechanism matches (RFC 7208 5); `include` is a matter of its own.
    async fn matches(
        &mut self,
        frame: &Frame,
        depth: usize,
        mechanism: &Mechanism<Spec>,
    ) -> Result<bool, Stop> {
        if let Some(matched) = mechanism.holds(self.query.ip) {
            self.note_term(depth, frame, None, matched);
            return Ok(matched);
        }
        self.count(frame)?;
        let Target::Name(name) = self.target(frame, mechanism.spec()).await? else {
            self.note_term(depth, frame, None, false);
            return Ok(false);
        };
        let matched = match mechanism {
            Mechanism::A(_, cidr) => self.has_address(&name, *cidr).await?,
            Mechanism::Mx(_, cidr) => self.has_exchange(&name, *cidr).await?,
            Mechanism::Ptr(_) => self.best_validated(&name).await?.is_some_and(|(_, within)| within),
            _ => !self.ask_counted(&name, RecordKind::A).await?.records().is_empty(),
        };
        self.note_term(depth, frame, Some(&name), matched);
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
    async fn target(&mut self, frame: &Frame, spec: Option<&Spec>) -> Result<Target, Stop> {
        let text = match spec {
            None => return Ok(Target::Name(frame.domain.clone())),
            Some(Spec::Fixed(name)) => return Ok(name.clone().map_or(Target::Malformed, Target::Name)),
            Some(Spec::Macros(text)) => text,
        };
        if !self.local.is_ascii() && macros::uses_local_part(text) {
            return Ok(Target::Unmatchable);
        }
        let mut expanded = String::new();
        let validated = self.validated_for(frame, text, Place::Term).await?;
        let scope = self.scope(frame, validated.as_ref());
        if scope.expand(text, Place::Term, NAME_WINDOW, &mut expanded).is_err() {
            return Ok(Target::Malformed);
        }
        Ok(record::name(&expanded).map_or(Target::Malformed, Target::Name))
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
        let spec = Spec::new(frame.record.explanation()?);
        let Ok(Target::Name(name)) = self.target(frame, Some(&spec)).await else { return None };
        let answer = self.resolver.lookup(&name, RecordKind::Txt).await.ok()?;
        let [record] = answer.records() else { return None };
        let text = String::from_utf8(record.text()?.into_owned()).ok().filter(|text| text.is_ascii())?;
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

    /// Counts a frame's term, which needs DNS, before its look-up.
    fn count(&mut self, frame: &Frame) -> Result<(), Stop> {
        self.lookups = self.lookups.saturating_add(1);
        let limit = self.query.limits.spf_terms;
        if self.lookups <= limit {
            return Ok(());
        }
        let term = frame.term().chars().take(255).collect();
        Err(permanent(Problem::TooManyLookups { limit, domain: frame.domain.clone(), term }))
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

    fn note_record(&mut self, depth: usize, frame: &Frame) {
        self.note(depth, &frame.domain, || Event::Record(frame.record.to_string()));
    }

    fn note_term(&mut self, depth: usize, frame: &Frame, target: Option<&Name>, matched: bool) {
        let term = || frame.term().to_owned();
        let event = || Event::Term { term: term(), target: target.map(Name::to_string), matched };
        self.note(depth, &frame.domain, event);
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
