//! From rustdoc's JSON to a list that a person can read: one line an item, its whole signature, short names.
//!
//! Invariant: nothing is left out but what every type has (blanket, automatic and derived implementations) and the methods
//! of implementations of foreign traits, which the `impl` line stands for.
//!
//! Not here: hidden items, which rustdoc does not print.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A library's list, and what it names of other people's crates.
pub(crate) struct List {
    pub(crate) text: String,
    pub(crate) foreign: BTreeSet<String>,
}

/// The public list of the library `lib` (`postwright_core`), one item a line.
pub(crate) fn of(lib: &str, json: &Path) -> Result<List, String> {
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .include_function_parameter_names(true)
        .build()
        .map_err(|error| {
            format!("{}: {error}; is `public-api` in Cargo.toml the version for this rustdoc? (if the file is missing: touch the library's lib.rs)", json.display())
        })?;
    let mut foreign = BTreeSet::new();
    let mut lines = Vec::new();
    for item in api.items() {
        let whole = item.to_string();
        // What a type of ours becomes by itself is listed as an implementation of ours.
        foreign.extend(words(&whole).filter_map(|word| crate_of(lib, word)));
        lines.push((item.id().0, shorten(lib, &whole)));
    }
    Ok(List { text: select(lines.into_iter()), foreign })
}

/// The crate of a path that is neither ours nor the standard library's.
fn crate_of(lib: &str, word: &str) -> Option<String> {
    let (first, _) = word.split_once("::")?;
    let own = first == lib || first.starts_with("postwright") || ["core", "alloc", "std"].contains(&first);
    (!own && first.starts_with(char::is_lowercase)).then(|| first.to_owned())
}

/// Drops what implementations of foreign traits consist of, and turns an item's second path into one line.
fn select(lines: impl Iterator<Item = (u32, String)>) -> String {
    // What has been listed, by rustdoc's number for it.
    let mut listed: BTreeMap<u32, String> = BTreeMap::new();
    let mut methods: BTreeSet<String> = BTreeSet::new();
    let mut text = String::new();
    // The path before the names of what is being left out.
    let mut dropping: Option<String> = None;
    for (id, line) in lines {
        let within = |owner: &String| path(&line).starts_with(owner.as_str());
        if line.starts_with("impl") {
            dropping = foreign(&line);
        } else if dropping.as_ref().is_some_and(within) {
            continue;
        } else {
            dropping = None;
        }
        let line = match listed.get(&id) {
            None => {
                listed.insert(id, path(&line).to_owned());
                methods.insert(line.clone());
                line
            }
            Some(first) if line.starts_with("impl") || first == path(&line) => continue,
            // A method that a trait provides has one number in the trait and wherever it is implemented.
            Some(_) if is_method(&line) => {
                if !methods.insert(line.clone()) {
                    continue;
                }
                line
            }
            Some(first) => {
                dropping = Some(format!("{}::", path(&line)));
                format!("pub use {first} as {}", path(&line))
            }
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn is_method(line: &str) -> bool {
    let owner = path(line).rsplit_once("::").map_or("", |(owner, _)| owner);
    let owner = owner.rsplit("::").next().unwrap_or_default();
    line.contains(" fn ") && owner.starts_with(char::is_uppercase)
}

/// The type for which a line implements a trait of the standard library, with the `::` of its members.
fn foreign(line: &str) -> Option<String> {
    let after = line.strip_prefix("impl")?;
    let after = if after.starts_with('<') { after.split_once("> ")?.1 } else { after.trim_start() };
    let (implemented, of) = after.split_once(" for ")?;
    let implemented = implemented.split('<').next().unwrap_or(implemented);
    // Ours have a module or are at the root, but never one of these names.
    FOREIGN.contains(&implemented).then(|| format!("{}::", of.split(" where ").next().unwrap_or(of)))
}

/// Traits whose members say nothing more than their names.
const FOREIGN: &[&str] = &[
    "AsRef",
    "Borrow",
    "Clone",
    "Debug",
    "Default",
    "Deref",
    "DerefMut",
    "Display",
    "Drop",
    "Eq",
    "Extend",
    "From",
    "FromIterator",
    "FromStr",
    "Future",
    "Hash",
    "Hasher",
    "Index",
    "IntoIterator",
    "Iterator",
    "Ord",
    "PartialEq",
    "PartialOrd",
    "TryFrom",
    "Write",
    "Add",
    "Sub",
    "AddAssign",
    "error::Error",
];

/// The path that a line is about, behind its keywords.
pub(crate) fn path(line: &str) -> &str {
    let skip = [
        "pub", "const", "async", "unsafe", "fn", "struct", "enum", "trait", "type", "mod", "use", "static",
        "macro", "union",
    ];
    let mut rest = line;
    loop {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        if skip.contains(&word) || word.starts_with("#[") {
            rest = after;
        } else {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || "_:!".contains(c))).unwrap_or(rest.len());
            return rest[..end].trim_end_matches(':');
        }
    }
}

/// Without the crate's own name and the modules of the standard library. `fmt::Result` and the like keep one, because the
/// bare name is another type.
fn shorten(lib: &str, line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, word, after)) = next_word(rest) {
        text.push_str(before);
        text.push_str(&short(lib, word));
        rest = after;
    }
    text.push_str(rest);
    text
}

/// Each name or path of a line.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let (_, word, after) = next_word(rest)?;
        rest = after;
        Some(word)
    })
}

/// What stands before the next name or path, that, and the rest.
fn next_word(text: &str) -> Option<(&str, &str, &str)> {
    let at = text.find(|c: char| c.is_alphabetic() || c == '_')?;
    let (before, rest) = text.split_at(at);
    let end = rest.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c))).unwrap_or(rest.len());
    let end = rest[..end].find(": ").unwrap_or(end);
    let word = rest[..end].trim_end_matches(':');
    Some((before, word, &rest[word.len()..]))
}

fn short(lib: &str, word: &str) -> String {
    let segments: Vec<&str> = word.split("::").collect();
    match segments.as_slice() {
        [first, rest @ ..] if *first == lib && !rest.is_empty() => rest.join("::"),
        // Where another crate of ours keeps a type inside is its own business.
        [first, module, .., name] if first.starts_with("postwright") => format!("{first}::{module}::{name}"),
        ["std", "io", .., name @ ("Result" | "Error")] => format!("io::{name}"),
        ["core" | "alloc" | "std", .., module, name] => match (*module, *name) {
            ("fmt", "Result") | (_, "Error") => format!("{module}::{name}"),
            _ => (*name).to_owned(),
        },
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_still_tell_apart() {
        let line = "pub fn postwright_core::reply::Reply::fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result";
        assert_eq!(
            shorten("postwright_core", line),
            "pub fn reply::Reply::fmt(&self, f: &mut Formatter<'_>) -> fmt::Result"
        );
        let line = "pub fn a::b(x: core::option::Option<postwright_core::time::Timestamp>) -> core::result::Result<(), std::io::error::Error>";
        assert_eq!(
            shorten("a", line),
            "pub fn b(x: Option<postwright_core::time::Timestamp>) -> Result<(), io::Error>"
        );
        assert_eq!(shorten("a", "pub a::Limits::size: u64"), "pub Limits::size: u64");
        assert_eq!(shorten("a", "pub mod a"), "pub mod a");
    }

    #[test]
    fn paths_are_found_behind_keywords() {
        assert_eq!(path("pub const fn reply::ReplyCode::get(self) -> u16"), "reply::ReplyCode::get");
        assert_eq!(path("#[non_exhaustive] pub enum Error"), "Error");
        assert_eq!(path("pub Limits::size: u64"), "Limits::size");
    }

    #[test]
    fn a_second_path_is_one_line() {
        let lines = [
            "pub struct a::Host",
            "pub a::Host::name: u8",
            "pub struct Host",
            "pub Host::name: u8",
            "pub struct Hosts",
        ];
        let text = select(lines.iter().zip([1, 2, 1, 2, 3]).map(|(line, id)| (id, (*line).to_owned())));
        assert_eq!(
            text,
            "pub struct a::Host\npub a::Host::name: u8\npub use a::Host as Host\npub struct Hosts\n"
        );
    }

    #[test]
    fn provided_methods_stay_where_they_are() {
        let lines = [
            "impl Store for Redis",
            "pub fn Redis::sweep(&self)",
            "pub trait Store: Send",
            "pub fn Store::sweep(&self)",
        ];
        let text = select(lines.iter().zip([1, 2, 3, 2]).map(|(line, id)| (id, (*line).to_owned())));
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn members_of_foreign_traits_are_left_out_and_ours_stay() {
        let lines = [
            "pub struct Host",
            "impl Host",
            "pub fn Host::domain(&self) -> Domain",
            "impl Display for Host",
            "pub fn Host::fmt(&self, f: &mut Formatter<'_>) -> fmt::Result",
            "impl Resolver for Host",
            "pub fn Host::lookup(&self)",
            "impl Resolver for Host",
            "pub struct Hosts",
        ];
        let text =
            select(lines.iter().zip([1, 2, 3, 4, 5, 6, 7, 6, 9]).map(|(line, id)| (id, (*line).to_owned())));
        assert_eq!(
            text,
            "pub struct Host\nimpl Host\npub fn Host::domain(&self) -> Domain\nimpl Display for Host\nimpl Resolver for Host\n\
             pub fn Host::lookup(&self)\npub struct Hosts\n"
        );
    }
}
