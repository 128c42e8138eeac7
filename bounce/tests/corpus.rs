//! The labelled refusals of `corpus/`: precision, recall and confusion of each half; the held-out half is the one that counts.
//!
//! `cargo xtask bounce-report` runs this with its output shown.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stdout, reason = "the test is the report that xtask shows")]

use std::collections::{BTreeMap, BTreeSet};

use postwright_bounce::classify::{Category, Classifier, Permanence};

struct Line<'a> {
    text: &'a str,
    permanence: Permanence,
    hard: bool,
    category: Category,
    source: &'a str,
}

fn lines(corpus: &str) -> Vec<Line<'_>> {
    let lines = corpus.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [text, permanence, hard, category, _, source] = columns[..] else {
                panic!("six columns: {line}")
            };
            Line {
                text,
                permanence: permanence.parse().unwrap(),
                hard: hard.parse().unwrap(),
                category: category.parse().unwrap(),
                source,
            }
        })
        .collect()
}

/// Shares of right permanence, hard and category, in percent.
fn judge(name: &str, lines: &[Line<'_>]) -> [f64; 3] {
    let classifier = Classifier::built_in();
    let mut right = [0_usize; 3];
    let mut confusion: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let (mut hits, mut alarms, mut dead) = (0, 0, 0);
    for line in lines {
        let got = classifier.classify_line(line.text);
        let same = [got.permanence == line.permanence, got.hard == line.hard, got.category == line.category];
        for (sum, same) in right.iter_mut().zip(same) {
            *sum += usize::from(same);
        }
        dead += usize::from(line.hard);
        hits += usize::from(line.hard && got.hard);
        alarms += usize::from(!line.hard && got.hard);
        if got.category != line.category {
            *confusion.entry((line.category.as_str(), got.category.as_str())).or_default() += 1;
        }
        if same != [true; 3] {
            println!(
                "  miss: {:?} want {} hard={} {}, got {} hard={} {} by {}",
                line.text,
                line.permanence,
                line.hard,
                line.category,
                got.permanence,
                got.hard,
                got.category,
                got.rule
            );
        }
    }
    let share = |count: usize| 100.0 * count as f64 / lines.len().max(1) as f64;
    println!("{name}: {} refusals", lines.len());
    println!(
        "  permanence {:.1}%, hard {:.1}%, category {:.1}%",
        share(right[0]),
        share(right[1]),
        share(right[2])
    );
    println!("  hard: precision {hits}/{}, recall {hits}/{dead}", hits + alarms);
    println!("  categories confused (wanted, got): {confusion:?}");
    right.map(share)
}

#[test]
fn the_held_out_half() {
    let corpus = include_str!("../corpus/held-out.tsv");
    let [permanence, hard, category] = judge("held-out", &lines(corpus));
    assert!(permanence >= 95.0 && hard >= 97.0 && category >= 65.0, "{permanence} {hard} {category}");
}

#[test]
fn the_rule_making_half() {
    let corpus = include_str!("../corpus/rule-making.tsv");
    let [permanence, hard, category] = judge("rule-making", &lines(corpus));
    assert!(permanence >= 99.0 && hard >= 99.0 && category >= 97.0, "{permanence} {hard} {category}");
}

/// A refusal's words: what is left without addresses, codes and punctuation.
fn words(text: &str) -> String {
    let kept = text.split_whitespace().filter(|word| !word.contains('@'));
    let kept = kept.flat_map(|word| word.split(|c: char| !c.is_alphabetic())).filter(|word| !word.is_empty());
    kept.collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Distinct texts; no source and no wording on both sides; each line with its source, few of them our own.
#[test]
fn the_halves_share_nothing() {
    let (made, held) =
        (lines(include_str!("../corpus/rule-making.tsv")), lines(include_str!("../corpus/held-out.tsv")));
    let texts: BTreeSet<&str> = made.iter().chain(&held).map(|line| line.text).collect();
    assert_eq!(texts.len(), made.len() + held.len(), "a refusal stands twice");
    let known: BTreeSet<String> = made.iter().map(|line| words(line.text)).collect();
    for line in &held {
        assert!(!known.contains(&words(line.text)), "{:?} stands in both halves", line.text);
    }
    let sources =
        |lines: &[Line<'_>]| lines.iter().map(|line| line.source.to_owned()).collect::<BTreeSet<_>>();
    assert!(sources(&made).is_disjoint(&sources(&held)));
    assert!(made.iter().chain(&held).all(|line| !line.source.trim().is_empty()));
    let own = made.iter().chain(&held).filter(|line| line.source == "self-written").count();
    println!("{} refusals, {} with a public source", texts.len(), texts.len() - own);
    assert!(
        texts.len() >= 600 && texts.len() - own >= 400 && own * 3 <= texts.len(),
        "{own} are self-written"
    );
    for reply in ["421 4.4.2", "421 4.3.2", "450 4.2.0", "550 5.7.1"] {
        assert!(
            made.iter().any(|line| line.source == "self-written" && line.text.starts_with(reply)),
            "{reply}"
        );
    }
}
