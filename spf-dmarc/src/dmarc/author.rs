//! The author domain: reading the `From` field as far as DMARC needs it.
//!
//! Invariant: every address that a mail reader might show gives a domain or makes the field [malformed]; nothing
//! is silently skipped, because what is skipped is not checked.
//!
//! Standards: RFC 5322 3.4 (with the obsolete forms of 4.4), RFC 6854 (groups), RFC 9989 5.3.1.
//!
//! Not here: display names; which `From` field of several is meant (several are malformed, RFC 5322 3.6).
//!
//! [malformed]: Authors::malformed

use std::borrow::Cow;

use postwright_core::{Domain, Name};

/// The domains of a `From` field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Authors {
    /// The different domains, in the order of the field.
    pub domains: Vec<Name>,
    /// Whether the field holds something that is no address, or none at all.
    pub malformed: bool,
}

impl Authors {
    /// Reads the value of a `From` field.
    ///
    /// ```
    /// use postwright_spf_dmarc::dmarc::Authors;
    /// let authors = Authors::parse("\"Joe, the <a@b.example>\" <joe@Example.org> (comment)");
    /// assert_eq!(authors.domains, ["example.org".parse()?]);
    /// assert!(!authors.malformed);
    /// # Ok::<(), postwright_core::dns::NameError>(())
    /// ```
    pub fn parse(value: &str) -> Authors {
        let mut authors = Authors::default();
        let mut scan = Scan::default();
        for c in value.chars() {
            if let Some(end) = scan.take(c) {
                authors.add(scan.mailbox(end));
            }
        }
        if scan.is_open() {
            authors.malformed = true;
        }
        authors.add(scan.mailbox(End::Mailbox));
        authors.malformed |= authors.domains.is_empty();
        authors
    }

    /// Reads all `From` fields of a header: there must be one (RFC 5322 3.6).
    pub fn parse_all<'v>(values: impl IntoIterator<Item = &'v str>) -> Authors {
        let mut all = Authors::default();
        let mut count = 0_usize;
        for authors in values.into_iter().map(Authors::parse) {
            count = count.saturating_add(1);
            all.malformed |= authors.malformed;
            for domain in authors.domains {
                if !all.domains.contains(&domain) {
                    all.domains.push(domain);
                }
            }
        }
        all.malformed |= count != 1;
        all
    }

    fn add(&mut self, found: Mailbox) {
        match found {
            Mailbox::Nothing => {}
            Mailbox::Bad => self.malformed = true,
            Mailbox::At(domain) if self.domains.contains(&domain) => {}
            Mailbox::At(domain) => self.domains.push(domain),
        }
    }
}

enum Mailbox {
    Nothing,
    Bad,
    At(Name),
}

/// Why a piece of the field ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// A comma, a semicolon or the end of the field.
    Mailbox,
    /// A colon: what stood before names a group.
    GroupName,
}

/// Room for the octets of a name or an address as they are, so that collecting them seldom moves them.
const TYPICAL: usize = 48;

/// The state of the scan; what lies outside of comments is collected.
#[derive(Default)]
struct Scan {
    comment: usize,
    quoted: bool,
    escaped: bool,
    /// Inside of `<...>`.
    angle: bool,
    /// The text outside of angle brackets; quoted text as a placeholder.
    phrase: String,
    /// The text inside of angle brackets, if there were any.
    address: Option<String>,
    /// Inside of `[...]`.
    literal: bool,
    /// Something that no grammar allows.
    bad: bool,
}

impl Scan {
    /// Takes one character; returns how a piece ends with it, if it does.
    fn take(&mut self, c: char) -> Option<End> {
        if std::mem::take(&mut self.escaped) {
            if self.comment == 0 {
                self.push('_');
            }
            return None;
        }
        match c {
            '\\' if self.comment > 0 || self.quoted => self.escaped = true,
            '"' if self.comment == 0 && !self.literal => {
                self.quoted = !self.quoted;
                self.push('"');
            }
            // Inside of quotes an @, a comma or a bracket means nothing.
            _ if self.quoted => self.push('_'),
            '(' => self.comment = self.comment.saturating_add(1),
            ')' if self.comment > 0 => self.comment -= 1,
            _ if self.comment > 0 => {}
            '[' => {
                self.literal = true;
                self.push(c);
            }
            ']' => {
                self.literal = false;
                self.push(c);
            }
            _ if self.literal => self.push(c),
            '<' if !self.angle && self.address.is_none() => {
                self.angle = true;
                self.address = Some(String::with_capacity(TYPICAL));
            }
            '<' => self.bad = true,
            '>' if self.angle => self.angle = false,
            '>' => self.bad = true,
            // A source route (RFC 5322 4.4) holds commas and a colon inside of the brackets.
            ':' if self.angle => self.address = Some(String::new()),
            ',' | ';' if self.angle => self.push(c),
            ',' | ';' => return Some(End::Mailbox),
            ':' => return Some(End::GroupName),
            _ => self.push(c),
        }
        None
    }

    fn push(&mut self, c: char) {
        match &mut self.address {
            Some(address) if self.angle => address.push(c),
            Some(_) if !c.is_whitespace() => self.bad = true,
            Some(_) => {}
            None => {
                if self.phrase.is_empty() {
                    self.phrase.reserve(TYPICAL);
                }
                self.phrase.push(c);
            }
        }
    }

    fn is_open(&self) -> bool {
        self.comment > 0 || self.quoted || self.escaped || self.angle || self.literal
    }

    /// The piece that ends here; the next one starts afresh.
    fn mailbox(&mut self, end: End) -> Mailbox {
        let piece = std::mem::take(self);
        if piece.bad {
            return Mailbox::Bad;
        }
        match (end, piece.address) {
            (End::GroupName, None) => Mailbox::Nothing,
            (End::GroupName, Some(_)) => Mailbox::Bad,
            (End::Mailbox, None) if piece.phrase.trim().is_empty() => Mailbox::Nothing,
            (End::Mailbox, None) => domain_of(&piece.phrase),
            // The phrase may hold anything but another address that a reader would take for the sender.
            (End::Mailbox, Some(address)) => domain_of(&address),
        }
    }
}

fn domain_of(address: &str) -> Mailbox {
    let Some((local, domain)) = address.rsplit_once('@') else { return Mailbox::Bad };
    // Blanks around dots are an obsolete form (RFC 5322 4.4).
    let domain = match domain.trim() {
        odd if odd.contains(char::is_whitespace) => odd.split_whitespace().collect(),
        domain => Cow::Borrowed(domain),
    };
    if local.trim().is_empty() || local.contains('@') {
        return Mailbox::Bad;
    }
    let name = if domain.is_ascii() {
        domain.parse::<Name>().ok().filter(|name| !name.is_root() && !domain.starts_with('['))
    } else {
        domain.parse::<Domain>().ok().map(|domain| Name::from(&domain))
    };
    name.map_or(Mailbox::Bad, Mailbox::At)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values in the forms of RFC 5322 appendix A, and what attackers make of them.
    #[test]
    fn every_address_counts() {
        for (value, domains, malformed) in [
            ("john@example.com", "example.com", false),
            ("John Doe <jdoe@machine.example>", "machine.example", false),
            ("\"Joe Q. Public\" <john.q.public@example.com>", "example.com", false),
            ("Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", "silly.test", false),
            ("A Group:Ed Jones <joe@where.test>,John <jdoe@one.test>;", "where.test one.test", false),
            ("Undisclosed recipients:;", "", true),
            ("John Doe <@machine.tld,@two.tld:jdoe@machine.example>", "machine.example", false),
            ("Joe <joe @ example . org>", "example.org", false),
            ("\"quoted@evil.example\"@example.org", "example.org", false),
            ("a@one.example, b@two.example, c@ONE.example", "one.example two.example", false),
            ("\r\n Joe\r\n <joe@example.org>", "example.org", false),
            ("", "", true),
            ("Joe", "", true),
            ("Joe <joe@example.org", "example.org", true),
            ("Joe <joe@example.org> <ceo@bank.example>", "", true),
            ("<joe@example.org> ceo@bank.example", "", true),
            ("<a@evil.example@bank.example>", "", true),
            ("joe@[192.0.2.1]", "", true),
            ("joe@example..org", "", true),
            ("@example.org", "", true),
        ] {
            let authors = Authors::parse(value);
            let found: Vec<String> = authors.domains.iter().map(Name::to_string).collect();
            assert_eq!((found.join(" ").as_str(), authors.malformed), (domains, malformed), "{value}");
        }
        assert!(Authors::parse_all(["a@one.example", "b@one.example"]).malformed);
        assert!(Authors::parse_all([]).malformed);
    }
}
