//! `[limits]`: every number that bounds a listener, with its range; presets by role; what one listener has of its own.
//!
//! Invariant: a number outside of its range is refused with the key and the range. What a listener gets is the
//! defaults, then the preset of its role, then `[limits]`, then its own `limits`; the later wins.
//!
//! Standards: RFC 5321 4.5.3 (sizes and times); see `postwright_smtp_proto::Limits` for the reasons.
//!
//! Not here: what the numbers do (smtp-server, smtp-proto).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::{Role, schema};

/// A number of things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);
/// Octets: `64 KiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);
/// Milliseconds: `90s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) u64);

impl Count {
    pub(crate) fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    pub(crate) fn small(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl Size {
    pub(crate) fn size(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Span {
    pub(crate) fn time(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(input)?;
        u64::try_from(number).map(Count).map_err(|_| de::Error::custom(format!("{number} is negative")))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        schema::from_size(input).map(Size)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let span = schema::from_span(input)?;
        Ok(Span(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match in_units(self.0, &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]) {
            Some((number, unit)) => write!(f, "{number} {unit}"),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match in_units(self.0, &[(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")]) {
            Some((number, unit)) => write!(f, "{number}{unit}"),
            None => write!(f, "{}ms", self.0),
        }
    }
}

/// In the largest of the units that it is a multiple of.
fn in_units(value: u64, units: &[(u64, &'static str)]) -> Option<(u64, &'static str)> {
    let (unit, name) = units.iter().find(|(unit, _)| value >= *unit && value.is_multiple_of(*unit))?;
    Some((value / unit, name))
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident = $default:expr, $least:expr => $most:expr;)+) => {
        /// All of `[limits]`.
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Limits {
            $($(#[doc = $doc])+ pub(crate) $name: $kind,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Limits { $($name: $kind($default),)+ }
            }
        }

        impl Limits {
            /// The first number that is out of its range: its key, and what to say.
            fn out_of_range(&self) -> Option<(&'static str, String)> {
                $(if !($least..=$most).contains(&self.$name.0) {
                    let (least, most) = ($kind($least), $kind($most));
                    return Some((stringify!($name), format!("{} is not from {least} to {most}", self.$name)));
                })+
                None
            }

            /// Key, default, least, most: for the documentation.
            #[cfg(test)]
            pub(crate) fn table() -> Vec<[String; 4]> {
                vec![$([
                    stringify!($name).to_owned(),
                    $kind($default).to_string(),
                    $kind($least).to_string(),
                    $kind($most).to_string(),
                ],)+]
            }
        }
    };
}

limits! {
    /// Largest message (RFC 5321 4.5.3.1.7: an MX takes at least 64 KiB).
    message_size: Size = 50 * MIB, 1000 => 1024 * GIB;
    /// Recipients of one transaction (RFC 5321 4.5.3.1.8: at least 100).
    recipients: Count = 1000, 100 => 100_000;
    /// Connections to one listener.
    connections: Count = 1000, 1 => 1_000_000;
    /// Connections to one listener from one address.
    connections_per_ip: Count = 100, 1 => 1_000_000;
    /// Connections to one listener from one network.
    connections_per_network: Count = 400, 1 => 1_000_000;
    /// New connections of one address in a minute.
    rate_per_ip: Count = 6000, 1 => 10_000_000;
    /// Above this share of `connections`, in percent, times and patience shrink.
    stress_percent: Count = 80, 1 => 100;
    /// TLS handshakes at a time.
    handshakes: Count = 200, 1 => 100_000;
    /// TLS handshakes of one address at a time.
    handshakes_per_ip: Count = 50, 1 => 100_000;
    /// What a handshake has before it makes room for another.
    handshake_grace: Span = 3 * SECOND, 100 => MINUTE;
    /// Silence before a handshake.
    client_hello_timeout: Span = 15 * SECOND, SECOND => 5 * MINUTE;
    /// A whole handshake.
    handshake_timeout: Span = MINUTE, SECOND => 10 * MINUTE;
    /// A decision before the message has come.
    decision_timeout: Span = 5 * MINUTE, SECOND => 10 * MINUTE;
    /// A command line (RFC 5321 4.5.3.1.4: at least 512).
    command_line: Size = 2 * KIB, 512 => 64 * KIB;
    /// A line of an AUTH exchange (RFC 4954 4: 12,288).
    auth_line: Size = 12_288, 12_288 => 64 * KIB;
    /// What is read of an overlong line before the end.
    line_discard: Size = 64 * KIB, 512 => 16 * MIB;
    /// A line of a message (RFC 5321 4.5.3.1.6: at least 1,000); 0 lets any pass.
    text_line: Size = 0, 0 => GIB;
    /// A chunk that is read only to be dropped.
    chunk_discard: Size = 64 * MIB, KIB => 1024 * GIB;
    /// Messages of one session.
    transactions: Count = 1000, 1 => 4_000_000_000;
    /// Refused commands of one session.
    errors: Count = 20, 1 => 1_000_000;
    /// Commands that do nothing, since the last message.
    junk_commands: Count = 100, 1 => 1_000_000;
    /// Failed logins of one session.
    auth_failures: Count = 3, 1 => 100;
    /// Wait for a command (RFC 5321 4.5.3.2.7: 5 minutes).
    command_timeout: Span = 5 * MINUTE, SECOND => HOUR;
    /// Wait for more of a message (RFC 5321 4.5.3.2.5: 3 minutes).
    data_timeout: Span = 3 * MINUTE, SECOND => HOUR;
    /// Wait for a reply to be taken.
    write_timeout: Span = 5 * MINUTE, SECOND => HOUR;
    /// Slowest message in octets a second; 0 lets any pass.
    min_data_rate: Size = 500, 0 => GIB;
    /// A whole session.
    session_timeout: Span = 2 * HOUR, MINUTE => 7 * 24 * HOUR;
    /// Memory for bodies on their way in, over all listeners.
    memory: Size = 512 * MIB, MIB => 1024 * GIB;
    /// Messages in the queue.
    queued: Count = 1_000_000, 1 => 1_000_000_000;
    /// How long a stop waits for running work.
    drain: Span = 5 * SECOND, 0 => HOUR;
}

/// Keys that are about the whole process and not about a listener.
const GLOBAL: [&str; 3] = ["memory", "queued", "drain"];

/// Where a role differs from the defaults.
fn preset(role: Role) -> &'static str {
    match role {
        Role::Mx => "",
        // People and their programs: few messages, few mistakes, no sessions that last for hours.
        Role::Submission => {
            "connections_per_ip = 50\nrate_per_ip = 300\ntransactions = 200\nerrors = 10\n\
             junk_commands = 50\nsession_timeout = \"30m\""
        }
        // Hosts of our own, which send much and keep their connections.
        Role::Relay => {
            "connections_per_ip = 1000\nconnections_per_network = 1000\nrate_per_ip = 60000\n\
             transactions = 1000000\nerrors = 1000\nsession_timeout = \"1d\""
        }
    }
}

impl Limits {
    /// What a listener gets. `common` is `[limits]` as written, `own` the listener's.
    pub(crate) fn of(role: Role, common: &toml::Table, own: &toml::Table) -> Result<Limits, String> {
        if let Some(key) = GLOBAL.iter().find(|key| own.contains_key(**key)) {
            return Err(format!("limits.{key} is for the whole process: put it into [limits]"));
        }
        let mut all: toml::Table =
            preset(role).parse().map_err(|error: toml::de::Error| error.to_string())?;
        all.extend(common.clone());
        all.extend(own.clone());
        Limits::deserialize(all).map_err(|error| super::complaint::with_suggestion(error.message()))
    }

    /// Ranges, and what the numbers owe each other. The key is named as `section` has it.
    pub(super) fn check(&self, section: &str) -> Result<(), String> {
        if let Some((key, what)) = self.out_of_range() {
            let reason = match key {
                "recipients" => " (RFC 5321 4.5.3.1.8)",
                "connections" | "connections_per_ip" | "queued" if what.starts_with("0 ") => {
                    ": nothing would ever happen"
                }
                _ => "",
            };
            return Err(format!("{section}.{key} = {what}{reason}"));
        }
        if (1..1000).contains(&self.text_line.0) {
            return Err(format!(
                "{section}.text_line is below 1000, the least that RFC 5321 4.5.3.1.6 allows; 0 is none"
            ));
        }
        if self.memory.0 < self.message_size.0 {
            return Err(format!(
                "{section}.memory is below {section}.message_size: a large message would never be taken"
            ));
        }
        if self.client_hello_timeout.0 > self.handshake_timeout.0 {
            return Err(format!(
                "{section}.client_hello_timeout is longer than {section}.handshake_timeout, of which it is the beginning"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(role: Role, common: &str, own: &str) -> Result<Limits, String> {
        Limits::of(role, &common.parse().unwrap(), &own.parse().unwrap())
    }

    #[test]
    fn the_later_wins() {
        for role in [Role::Mx, Role::Submission, Role::Relay] {
            of(role, "", "").unwrap().check("limits").unwrap();
        }
        assert_eq!(of(Role::Mx, "", "").unwrap(), Limits::default());
        assert_eq!(of(Role::Submission, "", "").unwrap().connections_per_ip.0, 50);
        assert_eq!(of(Role::Submission, "connections_per_ip = 7", "").unwrap().connections_per_ip.0, 7);
        let own = of(Role::Submission, "connections_per_ip = 7", "connections_per_ip = 8").unwrap();
        assert_eq!((own.connections_per_ip.0, own.errors.0), (8, 10));
    }

    #[test]
    fn every_number_has_a_range_that_holds_its_default() {
        for row in Limits::table() {
            assert_eq!(row.len(), 4);
        }
        assert_eq!(Limits::default().out_of_range(), None);
        for (text, key, part) in [
            ("errors = 0", "errors", "1 to 1000000"),
            ("command_timeout = \"2h\"", "command_timeout", "1s to 1h"),
            ("command_line = \"100 B\"", "command_line", "512 B to 64 KiB"),
            ("stress_percent = 101", "stress_percent", "1 to 100"),
        ] {
            let said = of(Role::Mx, text, "").unwrap().check("limits").unwrap_err();
            assert!(said.contains(&format!("limits.{key} = ")) && said.contains(part), "{said}");
        }
        assert!(of(Role::Mx, "", "eror = 1").unwrap_err().contains("did you mean `errors`"));
        assert!(of(Role::Mx, "", "errors = -1").unwrap_err().contains("negative"));
        assert!(of(Role::Mx, "", "memory = \"1 MiB\"").unwrap_err().contains("whole process"));
    }
}
