//! `postwright bench relay` against itself: every case gives a line, and bad input a sentence.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postwright"));
    command.args(["bench", "relay"]).args(arguments).output().unwrap()
}

#[test]
fn both_jobs_are_measured_and_every_message_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let few = [
        "--messages",
        "150",
        "--rounds",
        "1",
        "--size",
        "1024",
        "--connections",
        "7",
        "--json",
        "--dir",
        place,
    ];
    let output = bench(&few);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> = output
        .stdout
        .split(|octet| *octet == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let cases: Vec<(&str, &str)> =
        lines.iter().map(|line| (line["system"].as_str().unwrap(), line["job"].as_str().unwrap())).collect();
    assert_eq!(cases, [("bare", "load into sink"), ("postwright", "receive"), ("postwright", "relay")]);
    for line in &lines {
        assert_eq!((&line["durability"], &line["messages"]), (&"sync".into(), &150.into()));
        assert!(line["per_second"].as_f64().unwrap() > 0.0, "{line}");
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "its folders are gone");
}

#[test]
fn bad_input_is_named() {
    for (arguments, named) in [
        (["--messages", "0"], "--messages"),
        (["--size", "nine"], "--size"),
        (["--beside", "sendmail"], "postfix"),
        (["--dir", "/nonexistent/place"], "/nonexistent/place"),
    ] {
        let output = bench(&arguments);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(complaint.contains(named) && complaint.lines().count() == 1, "{arguments:?}: {complaint}");
    }
}
