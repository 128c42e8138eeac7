//! The configuration page says what the configuration is: every key of the schema stands in `docs/configuration.md`, and the
//! numbers of `[limits]` there are those of the code.

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

use super::listen::{AccountsConfig, Certificate, Dnsbl, Greylist, Listener, Tls};
use super::{Config, Limits, route, schema};

/// Asks a type for the names of its fields, by offering it nothing.
struct Names<'a>(&'a mut &'static [&'static str]);

#[derive(Debug)]
struct Asked;

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("only asking")
    }
}

impl std::error::Error for Asked {}

impl de::Error for Asked {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Asked
    }
}

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Asked;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Asked> {
        *self.0 = fields;
        Err(Asked)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Asked> {
        Err(Asked)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    let _ = T::deserialize(Names(&mut names));
    assert!(!names.is_empty());
    names
}

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md"));

/// The text of a section of the page.
fn section(name: &str) -> &'static str {
    let header = format!("\n## `{name}`\n");
    let start = PAGE.find(&header).unwrap_or_else(|| panic!("docs/configuration.md has no section `{name}`"));
    let rest = &PAGE[start + header.len()..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

fn row(section_name: &str, key: &str) -> Vec<String> {
    let start = format!("| `{key}` |");
    let line = section(section_name).lines().find(|line| line.starts_with(&start));
    let line =
        line.unwrap_or_else(|| panic!("docs/configuration.md: `{section_name}` lacks the key `{key}`"));
    line.split('|')
        .map(|cell| cell.trim().trim_matches('`').to_owned())
        .filter(|cell| !cell.is_empty())
        .collect()
}

#[test]
fn every_key_has_its_row() {
    let sections: &[(&str, &[&str])] = &[
        ("[spool]", fields::<schema::SpoolConfig>()),
        ("[[listen]]", fields::<Listener>()),
        ("listen.tls", fields::<Tls>()),
        ("listen.tls.more", fields::<Certificate>()),
        ("[accounts]", fields::<AccountsConfig>()),
        ("[greylist]", fields::<Greylist>()),
        ("[[dnsbl]]", fields::<Dnsbl>()),
        ("[relay]", fields::<schema::Relay>()),
        ("[delivery]", fields::<schema::Delivery>()),
        ("[retry]", fields::<schema::Retry>()),
        ("[dns]", fields::<schema::Dns>()),
        ("[authentication]", fields::<schema::Authentication>()),
        ("[reports]", fields::<super::reports::Reports>()),
        ("[tls_reports]", fields::<schema::TlsReports>()),
        ("[control]", fields::<schema::Control>()),
        ("[feedback]", fields::<schema::Feedback>()),
        ("[arc]", fields::<schema::ArcKey>()),
        ("[[dkim]]", fields::<schema::DkimKey>()),
        ("[[route]]", fields::<route::RouteTo>()),
        ("[[credentials]]", fields::<route::Credentials>()),
        ("[[class]]", fields::<route::ClassOf>()),
        ("[limits]", fields::<Limits>()),
    ];
    for (name, keys) in sections {
        for key in *keys {
            assert!(row(name, key).len() >= 4, "`{name}`: the row of `{key}` is not whole");
        }
        // And nothing that is not there.
        for line in section(name).lines().filter(|line| line.starts_with("| `")) {
            let key = line.split('`').nth(1).unwrap();
            assert!(keys.contains(&key), "docs/configuration.md: `{name}` has no key `{key}`");
        }
    }
    // What stands at the top, and sections that are younger than this list: named at least.
    for key in fields::<Config>() {
        let named = [format!("`[{key}]`"), format!("`[[{key}]]`"), format!("`{key}`")];
        assert!(named.iter().any(|name| PAGE.contains(name)), "docs/configuration.md does not name `{key}`");
    }
}

#[test]
fn limits_are_documented_as_they_are() {
    for [key, default, least, most] in Limits::table() {
        let cells = row("[limits]", &key);
        assert_eq!(cells[1..3], [default, format!("{least} to {most}")], "`{key}`");
    }
}

#[test]
fn the_site_of_the_operating_page_is_one() {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating.md"));
    let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let sites: Vec<&str> = blocks.filter(|block| block.contains("[[listen]]")).collect();
    assert_eq!(sites.len(), 1, "one site to copy");
    let config = Config::parse(sites[0], "docs/operating.md").unwrap();
    assert_eq!((config.listen.len(), config.dkim.len(), config.route.len()), (2, 1, 1));
}
