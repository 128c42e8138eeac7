//! Standards, both ways: every RFC that code names has a row in docs/rfcs.md, every row's RFC is named by code and its files
//! and tests exist; and each library's front page has its parts, with tests that exist.
//!
//! Not here: whether the test shows what the row says. That is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The RFCs that a text names: "RFC 5321", "RFCs 5321 and 5322", "RFC 1870, 6152, 6531".
pub(crate) fn named(text: &str) -> BTreeSet<String> {
    // A line of a comment goes on in the next one.
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches(['/', '!']).trim());
    let text = lines.collect::<Vec<_>>().join(" ");
    let mut found = BTreeSet::new();
    for rest in text.split("RFC").skip(1) {
        let mut rest = rest.strip_prefix('s').unwrap_or(rest).trim_start_matches([' ', '_']);
        loop {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            // A number of another length is a section, or no RFC that mail has.
            if end != 4 {
                break;
            }
            found.insert(rest[..end].to_owned());
            rest = &rest[end..];
            let Some(next) = [", ", " and ", " or "].iter().find_map(|between| rest.strip_prefix(between))
            else {
                break;
            };
            rest = next;
        }
    }
    found
}

/// One row of a table of docs/rfcs.md.
struct Row<'p> {
    rfc: &'p str,
    cells: Vec<&'p str>,
}

fn rows(page: &str) -> Vec<Row<'_>> {
    page.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line
                .strip_prefix("| ")?
                .trim_end()
                .trim_end_matches('|')
                .split(" | ")
                .map(str::trim)
                .collect();
            let rfc = *cells.first()?;
            (rfc.len() == 4 && rfc.bytes().all(|byte| byte.is_ascii_digit())).then_some(Row { rfc, cells })
        })
        .collect()
}

/// What is wrong between the sources (path and text) and the page.
pub(crate) fn faults(root: &Path, sources: &[(String, String)], page: &str) -> Vec<String> {
    let mut by_code: BTreeMap<String, &str> = BTreeMap::new();
    for (path, text) in sources {
        for rfc in named(text) {
            by_code.entry(rfc).or_insert(path);
        }
    }
    let rows = rows(page);
    let listed: BTreeSet<&str> = rows.iter().map(|row| row.rfc).collect();
    let mut faults: Vec<String> = by_code
        .iter()
        .filter(|(rfc, _)| !listed.contains(rfc.as_str()))
        .map(|(rfc, path)| format!("{path} names RFC {rfc}, which has no row in docs/rfcs.md"))
        .collect();
    for row in &rows {
        let at = format!("docs/rfcs.md, RFC {}, {:?}", row.rfc, row.cells.get(2).unwrap_or(&""));
        if !by_code.contains_key(row.rfc) {
            faults.push(format!("{at}: no source names that RFC"));
        }
        let files = files(root, &row.cells);
        faults.extend(
            files
                .iter()
                .filter_map(|file| file.as_ref().err())
                .map(|file| format!("{at}: there is no {file}")),
        );
        let folders: BTreeSet<PathBuf> = files.iter().flatten().map(|file| package(root, file)).collect();
        let test = row.cells.get(4).copied().unwrap_or_default();
        for name in tests(test) {
            if !folders.iter().any(|folder| has_function(folder, name)) {
                faults.push(format!("{at}: there is no test {name}"));
            }
        }
    }
    faults
}

/// The files that the last cells of a row name. A path is whole, or stands in the folder of the one before it, or in the tests of
/// the package that the row is about.
fn files(root: &Path, cells: &[&str]) -> Vec<Result<PathBuf, String>> {
    let mut found = Vec::new();
    let mut first: Option<PathBuf> = None;
    for cell in cells.iter().skip(3) {
        let mut beside: Option<PathBuf> = None;
        for word in
            cell.split([' ', ',', ';', ':', '`']).filter(|word| word.ends_with(".rs") || word.ends_with('/'))
        {
            let mut places = vec![root.join(word)];
            places.extend(beside.iter().map(|folder| folder.join(word)));
            places.extend(first.iter().map(|file| package(root, file).join(word)));
            match places.into_iter().find(|place| place.exists()) {
                Some(place) => {
                    beside = place.parent().map(Path::to_path_buf);
                    first.get_or_insert_with(|| place.clone());
                    found.push(Ok(place));
                }
                None => found.push(Err(word.to_owned())),
            }
        }
    }
    found
}

/// The folder of the manifest that a file belongs to.
fn package(root: &Path, file: &Path) -> PathBuf {
    let found = file.ancestors().find(|folder| folder.join("Cargo.toml").is_file());
    found.unwrap_or(root).to_path_buf()
}

/// Names of functions in backticks.
fn tests(cell: &str) -> impl Iterator<Item = &str> {
    let name = |name: &&str| {
        name.contains('_')
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    cell.split('`').skip(1).step_by(2).filter(name)
}

fn has_function(folder: &Path, name: &str) -> bool {
    let (open, generic) = (format!("fn {name}("), format!("fn {name}<"));
    crate::sources(folder).iter().any(|path| {
        std::fs::read_to_string(path).is_ok_and(|text| text.contains(&open) || text.contains(&generic))
    })
}

/// What is missing on a library's front page; `limits` for those that take something from others.
pub(crate) fn front_page(folder: &Path, shown: &str, text: &str, limits: bool) -> Vec<String> {
    let page: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let heading = |word: &str| page.iter().any(|line| line.starts_with(&format!(" # {word}")));
    let says =
        |what: &[&str]| what.iter().any(|what| page.iter().any(|line| line.to_lowercase().contains(what)));
    let mut faults = Vec::new();
    if limits && !heading("Limits") {
        faults.push(format!("{shown}: no heading Limits, with a table of the numbers and where each is set"));
    }
    if !heading("Standards") {
        faults.push(format!("{shown}: no heading Standards, with the test that holds each"));
    }
    if !says(&["not here", "is not"]) {
        faults.push(format!("{shown}: what is it not?"));
    }
    if page.iter().filter(|line| line.starts_with(" ```")).count() < 2 {
        faults.push(format!("{shown}: no example that does its main job"));
    }
    let standards = page.iter().skip_while(|line| !line.starts_with(" # Standards"));
    for row in standards.filter(|line| line.starts_with(" | ")) {
        for word in row.split(['`', '(', ')', ' ', ',']).filter(|word| word.starts_with("tests/")) {
            if !folder.join(word).exists() {
                faults.push(format!("{shown}: there is no {word}"));
            }
        }
        let missing = tests(row).filter(|name| !has_function(folder, name));
        faults.extend(missing.map(|name| format!("{shown}: there is no test {name}")));
    }
    faults
}
