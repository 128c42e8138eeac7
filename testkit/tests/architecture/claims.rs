//! The pages that say which test shows what: every test that they name must exist.
//!
//! A page names tests as `path.rs`: `name`, `name`, … `name`; the dots stand for the same file once more, and a line
//! ends what a path holds for. A path is whole, or begins with a short form of docs/faults.md.
//!
//! Not here: whether the test shows what the page says. That is read.

use std::path::Path;

use crate::short::SHORT;

/// The tests that a page names: the path as written, and the name.
pub(crate) fn claims(page: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for line in page.lines() {
        let mut file = None;
        let mut before = "";
        // Text and code take turns.
        for (index, piece) in line.split('`').enumerate() {
            if index % 2 == 0 {
                before = piece;
            } else if piece.ends_with(".rs") {
                file = Some(piece);
            } else if let Some(file) =
                file.filter(|_| before == ": " || before == ", " || before.ends_with("… "))
            {
                let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                if piece.contains('_') && piece.chars().all(name) {
                    found.push((file, piece));
                }
            }
        }
    }
    found
}

/// What is wrong with what a page names.
pub(crate) fn faults(root: &Path, shown: &str, page: &str) -> Vec<String> {
    let read = |file: &str| {
        let whole = std::fs::read_to_string(root.join(file)).ok();
        let short = || {
            let (short, folder) = SHORT.iter().find(|(short, _)| file.starts_with(short))?;
            std::fs::read_to_string(root.join(folder).join(&file[short.len()..])).ok()
        };
        whole.or_else(short)
    };
    let missing = |(file, name): &(&str, &str)| match read(file) {
        None => Some(format!("{shown} names {file}, which is not there")),
        Some(text) if text.contains(&format!("fn {name}(")) => None,
        Some(_) => Some(format!("{shown} names {name} in {file}, which has no such test")),
    };
    claims(page).iter().filter_map(missing).collect()
}
