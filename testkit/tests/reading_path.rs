//! What the pages claim and a machine can check: the links, files, tests, commands, features and names in them exist.
//!
//! Invariant: a page that names something that is not there fails here; so does a name that is renamed in the code alone. The checker
//! is itself shown a page that is wrong.
//!
//! Not here: whether the prose is true (docs/walks.md is about that); code blocks, which are doctests or tests of their own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "architecture/short.rs"]
mod short;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use postwright_testkit::workspace_root;
use short::SHORT;

/// The pages of the ten minutes: every name in them is looked up, not only files and tests.
const PATH: &[&str] = &["README.md", "ARCHITECTURE.md", "SECURITY.md", "docs/flow.md"];

/// What pages may lean on.
struct House {
    root: PathBuf,
    /// Folders that a page may leave out in front of `src/` and `tests/`.
    crates: Vec<PathBuf>,
    /// Every word of the sources and manifests.
    words: BTreeSet<String>,
    functions: BTreeSet<String>,
    commands: Vec<String>,
    chores: String,
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type().unwrap().is_dir() {
            if !name.starts_with('.') && name != "target" && name != "corpus" {
                walk(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

impl House {
    fn open() -> House {
        let root = workspace_root();
        let mut files = Vec::new();
        walk(&root, &mut files);
        let (mut words, mut functions, mut crates) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for file in &files {
            if file.file_name().is_some_and(|name| name == "Cargo.toml") {
                crates.push(file.parent().unwrap().to_path_buf());
            }
            // This file names what is not there.
            if file.extension().is_none_or(|ending| ending != "rs" && ending != "toml")
                || file.ends_with("reading_path.rs")
            {
                continue;
            }
            let Ok(text) = std::fs::read_to_string(file) else { continue };
            words.extend(text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).map(str::to_owned));
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(|c| !is_word(c)).next());
            functions.extend(names.map(str::to_owned));
        }
        let commands =
            std::fs::read_to_string(root.join("examples/reference-mta/src/commands/mod.rs")).unwrap();
        let list = commands.split("enum Command {").nth(1).unwrap().split("\n}").next().unwrap();
        let commands =
            list.lines().filter_map(|line| line.trim().split_once('(')).map(|(name, _)| name.to_lowercase());
        let chores = std::fs::read_to_string(root.join("xtask/src/main.rs")).unwrap();
        House { crates, words, functions, commands: commands.collect(), chores, root }
    }

    fn exists(&self, page: &Path, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let beside = page.parent().unwrap_or(Path::new(""));
        let long = |(short, long): &(&str, &str)| Some(self.root.join(long).join(path.strip_prefix(short)?));
        if page.ends_with("docs/faults.md") && SHORT.iter().filter_map(long).any(|file| file.exists()) {
            return true;
        }
        if let Some(own) = page.to_str().and_then(|page| page.strip_suffix("src/lib.rs")) {
            return self.root.join(own).join(path).exists() || self.root.join(path).exists();
        }
        let places = [self.root.clone(), self.root.join(beside)];
        places.iter().chain(&self.crates).any(|place| place.join(path).exists())
    }

    /// What is wrong with a page.
    fn faults(&self, page: &str, text: &str) -> Vec<String> {
        let shown = Path::new(page);
        let mut faults = Vec::new();
        let mut fault = |line: usize, what: String| faults.push(format!("{page}:{}: {what}", line + 1));
        let mut is_code = false;
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                is_code = !is_code;
                continue;
            }
            if is_code {
                continue;
            }
            for link in links(line).filter(|link| !link.contains("://") && !link.starts_with('#')) {
                let path = link.split('#').next().unwrap();
                if !self.root.join(shown.parent().unwrap()).join(path).exists() {
                    fault(number, format!("the link to {link} leads nowhere"));
                }
            }
            for path in paths(line) {
                if !self.exists(shown, path) {
                    fault(number, format!("there is no {path}"));
                }
            }
            for span in line.split('`').skip(1).step_by(2) {
                self.span(span, PATH.contains(&page)).into_iter().for_each(|what| fault(number, what));
            }
        }
        faults
    }

    /// What is wrong with words set as code.
    fn span(&self, span: &str, every_name: bool) -> Option<String> {
        let words: Vec<&str> = span.split_whitespace().collect();
        match words[..] {
            ["cargo", "xtask", chore, ..] => {
                let is_there = self.chores.contains(&format!("\"{chore}\" =>"));
                (!is_there).then(|| format!("there is no chore {chore:?}"))
            }
            ["cargo", "test", ref more @ ..] => self.tests(more),
            ["postwright", command, ..] if command.starts_with(|c: char| c.is_ascii_lowercase()) => {
                let (mut all, is_help) = (command.split('|'), command == "help");
                let is_there = is_help || all.all(|one| self.commands.iter().any(|known| known == one));
                (!is_there).then(|| format!("there is no command {command:?}"))
            }
            [name]
                if !name.starts_with('_')
                    && name.matches('_').count() >= 3
                    && name.chars().all(|c| is_word(c) && !c.is_uppercase()) =>
            {
                // A sentence in snake case is a test.
                let is_there = self.functions.contains(name) || self.words.contains(name);
                (!is_there).then(|| format!("there is no function {name}"))
            }
            [name] if every_name && is_name(name) => {
                let last = name.trim_end_matches("()").rsplit("::").next().unwrap_or(name);
                (!self.words.contains(last)).then(|| format!("nothing is called {name}"))
            }
            _ => None,
        }
    }

    /// `cargo test -p PACKAGE --test NAME...`.
    fn tests(&self, words: &[&str]) -> Option<String> {
        let after = |flag: &'static str| {
            words.windows(2).filter(move |pair| pair[0] == flag).map(|pair| pair[1].trim_end_matches(','))
        };
        let package = after("-p").next()?;
        let folder = match package.strip_prefix("postwright-") {
            Some("reference-mta") => "examples/reference-mta",
            Some(folder) => folder,
            None => "mta",
        };
        let folder = self.root.join(folder);
        if !folder.join("Cargo.toml").exists() {
            return Some(format!("there is no package {package}"));
        }
        let is_there = |name: &&str| {
            let tests = folder.join("tests");
            tests.join(format!("{name}.rs")).exists() || tests.join(name).join("main.rs").exists()
        };
        after("--test").find(|name| !is_there(name)).map(|name| format!("{package} has no test {name}"))
    }
}

/// The targets of links.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// What looks like a file of ours, wherever it stands in a line.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let tokens = line.split(move |c| !is_path(c)).map(|token| token.trim_end_matches('.'));
    tokens.filter(|token| {
        let is_file = [".rs", ".md"].iter().any(|ending| token.ends_with(ending));
        is_file && token.contains('/') && !token.starts_with(['/', '.'])
    })
}

/// What looks like a name of ours: `Type`, `module::Type`, `some_function`.
fn is_name(text: &str) -> bool {
    let text = text.trim_end_matches("()");
    let is_type =
        text.starts_with(|c: char| c.is_ascii_uppercase()) && text.contains(|c: char| c.is_ascii_lowercase());
    let shaped = text.contains("::") || text.contains('_') || (is_type && !text.contains('-'));
    shaped && text.split("::").all(|part| !part.is_empty() && part.chars().all(is_word))
}

#[test]
fn what_the_pages_name_is_there() {
    let house = House::open();
    let mut files = Vec::new();
    walk(&house.root, &mut files);
    let mut faults = Vec::new();
    let mut pages = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "md")) {
        let page = file.strip_prefix(&house.root).unwrap().to_string_lossy().into_owned();
        faults.extend(house.faults(&page, &std::fs::read_to_string(file).unwrap()));
        pages += 1;
    }
    assert!(pages > 20, "the pages were not found");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn what_the_front_pages_name_is_there() {
    let house = House::open();
    let mut faults = Vec::new();
    let mut pages = 0;
    for folder in &house.crates {
        let Ok(text) = std::fs::read_to_string(folder.join("src/lib.rs")) else { continue };
        let page = text.lines().map_while(|line| line.strip_prefix("//!"));
        let page: Vec<&str> = page.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
        let shown = folder.strip_prefix(&house.root).unwrap().join("src/lib.rs");
        // rustdoc follows the links.
        let found = house.faults(&shown.to_string_lossy(), &page.join("\n"));
        faults.extend(found.into_iter().filter(|fault| !fault.contains("leads nowhere")));
        pages += 1;
    }
    assert!(pages >= 10, "the front pages were not found");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_wrong_page_is_found_out() {
    let house = House::open();
    let right = "[map](ARCHITECTURE.md) core/src/lib.rs, `cargo test -p postwright-queue --test crash`, `postwright serve`\n\
                 `cargo xtask test`, `Mta::run`, `take_in`, tests/crash.rs\n```\nno/such/file.rs\n```\n";
    assert_eq!(house.faults("README.md", right), Vec::<String>::new());
    for (wrong, said) in [
        ("[map](MAP.md)", "leads nowhere"),
        ("see core/src/missing.rs", "there is no core/src/missing.rs"),
        ("`cargo xtask dance`", "no chore"),
        ("`cargo test -p postwright-queue --test crush`", "has no test crush"),
        ("`cargo test -p postwright-nothing`", "no package"),
        ("`postwright surf`", "no command"),
        ("`no_such_test_is_anywhere_here`", "no function"),
        ("`Mta::ruun`", "nothing is called"),
        ("`NoSuchTypeHere`", "nothing is called"),
    ] {
        let faults = house.faults("README.md", wrong);
        assert!(faults.len() == 1 && faults[0].contains(said), "{wrong}: {faults:?}");
    }
}

#[test]
fn the_crates_of_the_readme_programs_are_named_with_them() {
    let text = std::fs::read_to_string(workspace_root().join("README.md")).unwrap();
    let server = text.split("## A server").nth(1).unwrap().split("\n## ").next().unwrap();
    let manifest = server.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    let program = server.split("```rust,no_run\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(program.lines().count() <= 32, "a server on one screen");
    let used = program.split(|c| !is_word(c)).filter(|word| word.starts_with("postwright_"));
    let used: BTreeSet<String> = used.map(|word| word.replace('_', "-")).collect();
    let named = |name: &String| dependencies.contains_key(name);
    assert!(used.iter().all(named) && dependencies.contains_key("tokio"), "{used:?}");
    for (name, value) in dependencies.iter().filter(|(name, _)| *name != "tokio") {
        let folder = value["path"].as_str().unwrap().strip_prefix("../postwright/").unwrap();
        let manifest = std::fs::read_to_string(workspace_root().join(folder).join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("name = {name:?}")), "{folder} is not {name}");
    }
}
