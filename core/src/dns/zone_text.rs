//! The text form of [`MemoryZone`]: zone files (RFC 1035 section 5) with failures as a record type.
//!
//! Not here: `$INCLUDE` and `$GENERATE`, which are errors.

use super::{DnsError, MemoryZone, Name, Record, RecordKind};

/// Longest time to live, in digits, that is taken for a number rather than a name.
const TTL_DIGITS_MAX: usize = 10;

/// What is wrong with a zone text, and on which line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ZoneError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong and what was expected.
    pub what: String,
}

/// One word of an entry: its octets, and whether it was quoted.
struct Word {
    octets: Vec<u8>,
    quoted: bool,
}

impl Word {
    fn text(&self) -> Result<&str, String> {
        std::str::from_utf8(&self.octets).map_err(|_| "a name or number is not ASCII".to_owned())
    }

    fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.octets.eq_ignore_ascii_case(keyword.as_bytes())
    }
}

/// An entry: one line, or several joined by parentheses.
struct Entry {
    line: usize,
    owner_left_out: bool,
    words: Vec<Word>,
}

pub(super) fn read(text: &str, zone: &MemoryZone) -> Result<(), ZoneError> {
    let mut reader = Reader { zone, origin: None, owner: None };
    for entry in entries(text)? {
        let line = entry.line;
        reader.take(entry).map_err(|what| ZoneError { line, what })?;
    }
    Ok(())
}

struct Reader<'z> {
    zone: &'z MemoryZone,
    origin: Option<Name>,
    owner: Option<Name>,
}

impl Reader<'_> {
    fn take(&mut self, entry: Entry) -> Result<(), String> {
        let mut words = entry.words.iter().peekable();
        let Some(first) = words.peek() else { return Ok(()) };
        if !first.quoted && first.octets.starts_with(b"$") {
            return self.directive(&entry.words);
        }
        if !entry.owner_left_out {
            let owner = self.name(words.next().ok_or("an owner name is missing")?)?;
            self.owner = Some(owner);
        }
        let owner =
            self.owner.clone().ok_or("the first entry has no owner name; it must not start with a blank")?;
        while words.peek().is_some_and(|word| is_ttl(word) || word.is("IN")) {
            words.next();
        }
        let kind = words.next().ok_or("a record type is missing behind the owner name")?;
        let rest: Vec<&Word> = words.collect();
        self.record(owner, kind, &rest)
    }

    fn directive(&mut self, words: &[Word]) -> Result<(), String> {
        let argument = words.get(1).ok_or_else(|| "the directive needs an argument".to_owned());
        match words[0].text()?.to_ascii_uppercase().as_str() {
            "$ORIGIN" => self.origin = Some(self.name(argument?)?),
            "$SECURE" => {
                let apex = self.name(argument?)?;
                self.zone.secure(apex);
            }
            "$TTL" => {
                argument?;
            }
            other => return Err(format!("unknown directive {other}; known are $ORIGIN, $TTL and $SECURE")),
        }
        Ok(())
    }

    fn record(&self, owner: Name, kind: &Word, data: &[&Word]) -> Result<(), String> {
        if let Some(error) = failure(kind) {
            self.zone.fail(owner, None, error);
            return Ok(());
        }
        let kind_text = kind.text()?.to_ascii_uppercase();
        let Some(kind) = RecordKind::ALL.into_iter().find(|known| known.to_string() == kind_text) else {
            const EXIST_ONLY: [&str; 12] = [
                "SOA",
                "SRV",
                "CAA",
                "SPF",
                "DS",
                "DNSKEY",
                "RRSIG",
                "NSEC",
                "NSEC3",
                "NSEC3PARAM",
                "HTTPS",
                "SVCB",
            ];
            if EXIST_ONLY.contains(&kind_text.as_str()) || kind_text.starts_with("TYPE") {
                self.zone.touch(owner);
                return Ok(());
            }
            return Err(format!(
                "unknown record type {kind_text}; or a relative owner name that starts with a blank"
            ));
        };
        if let [only] = data
            && let Some(error) = failure(only)
        {
            self.zone.fail(owner, Some(kind), error);
            return Ok(());
        }
        let record = self.data(kind, data)?;
        self.zone.insert(owner, record);
        Ok(())
    }

    fn data(&self, kind: RecordKind, data: &[&Word]) -> Result<Record, String> {
        let want = |count: usize, what: &str| {
            if data.len() == count {
                Ok(())
            } else {
                Err(format!("{kind} needs {what}, found {} words", data.len()))
            }
        };
        Ok(match kind {
            RecordKind::A => {
                want(1, "an IPv4 address")?;
                Record::A(data[0].text()?.parse().map_err(|_| "A needs an IPv4 address".to_owned())?)
            }
            RecordKind::Aaaa => {
                want(1, "an IPv6 address")?;
                Record::Aaaa(data[0].text()?.parse().map_err(|_| "AAAA needs an IPv6 address".to_owned())?)
            }
            RecordKind::Cname | RecordKind::Ns | RecordKind::Ptr => {
                want(1, "a name")?;
                let name = self.name(data[0])?;
                match kind {
                    RecordKind::Cname => Record::Cname(name),
                    RecordKind::Ns => Record::Ns(name),
                    _ => Record::Ptr(name),
                }
            }
            RecordKind::Mx => {
                want(2, "a preference and a name")?;
                let preference =
                    data[0].text()?.parse().map_err(|_| "an MX preference is 0 to 65535".to_owned())?;
                Record::Mx { preference, exchange: self.name(data[1])? }
            }
            RecordKind::Txt => {
                if data.is_empty() {
                    return Err("TXT needs at least one string".to_owned());
                }
                if data.iter().any(|word| word.octets.len() > 255) {
                    return Err("a string of a TXT record has at most 255 octets; write several".to_owned());
                }
                Record::Txt(data.iter().map(|word| word.octets.clone().into()).collect())
            }
            RecordKind::Tlsa => tlsa(data)?,
        })
    }

    fn name(&self, word: &Word) -> Result<Name, String> {
        let text = word.text()?;
        let complete = match (&self.origin, text) {
            (Some(origin), "@") => return Ok(origin.clone()),
            (None, "@") => return Err("@ needs an $ORIGIN".to_owned()),
            (Some(origin), relative) if !relative.ends_with('.') => origin.prepend(relative),
            _ => text.parse(),
        };
        complete.map_err(|error| format!("{text:?}: {error}"))
    }
}

fn tlsa(data: &[&Word]) -> Result<Record, String> {
    let [usage, selector, matching, hex @ ..] = data else {
        return Err("TLSA needs usage, selector, matching type and hex digits".to_owned());
    };
    let number = |word: &Word| word.text()?.parse::<u8>().map_err(|_| "a TLSA number is 0 to 255".to_owned());
    let digits: Vec<u8> = hex.iter().flat_map(|word| word.octets.iter().copied()).collect();
    let nibble = |b: u8| char::from(b).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let octet = |pair: &[u8]| match pair {
        [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
        _ => None,
    };
    let data: Option<Box<[u8]>> = digits.chunks(2).map(octet).collect();
    Ok(Record::Tlsa {
        usage: number(usage)?,
        selector: number(selector)?,
        matching: number(matching)?,
        data: data.ok_or("TLSA data is an even number of hex digits")?,
    })
}

fn failure(word: &Word) -> Option<DnsError> {
    let failures =
        [("TIMEOUT", DnsError::Timeout), ("SERVFAIL", DnsError::ServFail), ("BOGUS", DnsError::Bogus)];
    failures.into_iter().find(|(keyword, _)| word.is(keyword)).map(|(_, error)| error)
}

fn is_ttl(word: &Word) -> bool {
    !word.quoted
        && word.octets.len() <= TTL_DIGITS_MAX
        && word.octets.first().is_some_and(u8::is_ascii_digit)
        && word.octets.iter().all(|b| b.is_ascii_digit() || b"smhdwSMHDW".contains(b))
}

/// Cuts the text into entries and words: comments, quotes, escapes and parentheses end here.
fn entries(text: &str) -> Result<Vec<Entry>, ZoneError> {
    let mut all = Vec::new();
    let mut depth = 0_usize;
    for (i, line_text) in text.lines().enumerate() {
        let line = i + 1;
        if depth == 0 {
            all.push(Entry { line, owner_left_out: line_text.starts_with([' ', '\t']), words: Vec::new() });
        }
        let Some(entry) = all.last_mut() else { continue };
        words(line_text, &mut entry.words, &mut depth).map_err(|what| ZoneError { line, what })?;
    }
    if depth > 0 {
        let line = all.last().map_or(1, |entry| entry.line);
        return Err(ZoneError { line, what: "the parenthesis opened here is never closed".to_owned() });
    }
    Ok(all)
}

fn words(line: &str, out: &mut Vec<Word>, depth: &mut usize) -> Result<(), String> {
    let mut rest = line.bytes().peekable();
    while let Some(b) = rest.next() {
        match b {
            b';' => return Ok(()),
            b'(' => *depth += 1,
            b')' => *depth = depth.checked_sub(1).ok_or("a closing parenthesis without an opening one")?,
            b' ' | b'\t' | b'\r' => {}
            b'"' => {
                let mut octets = Vec::new();
                loop {
                    match rest.next().ok_or("a quoted string is not closed on its line")? {
                        b'"' => break,
                        b'\\' => octets.push(escape(&mut rest)?),
                        other => octets.push(other),
                    }
                }
                out.push(Word { octets, quoted: true });
            }
            first => {
                let mut octets = vec![if first == b'\\' { escape(&mut rest)? } else { first }];
                while let Some(b) = rest.next_if(|b| !b" \t\r;()\"".contains(b)) {
                    octets.push(if b == b'\\' { escape(&mut rest)? } else { b });
                }
                out.push(Word { octets, quoted: false });
            }
        }
    }
    Ok(())
}

/// `\X` is X, `\DDD` is the octet of that decimal number (RFC 1035 5.1).
fn escape(rest: &mut impl Iterator<Item = u8>) -> Result<u8, String> {
    let bad = || "a backslash is followed by a character or by three decimal digits up to 255".to_owned();
    let first = rest.next().ok_or_else(bad)?;
    if !first.is_ascii_digit() {
        return Ok(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let digit = rest.next().filter(u8::is_ascii_digit).ok_or_else(bad)?;
        value = value * 10 + u16::from(digit - b'0');
    }
    u8::try_from(value).map_err(|_| bad())
}
