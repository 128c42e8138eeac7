//! Shaping in the real binary: ways out, permits of idle connections, warm-ups over restarts, and the commands.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use support::load::Client;
use support::mta::Mta;
use support::wait_until;

/// One message as a receiver saw it.
#[derive(Debug, Clone)]
struct Seen {
    from: IpAddr,
    ehlo: String,
    connection: usize,
}

/// Connections that several receivers have open together.
#[derive(Default)]
struct Open {
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

/// A receiver that tells by whom it was greeted.
struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Receiver {
    fn start(open: &Arc<Open>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (told, open) = (seen.clone(), open.clone());
        // The thread ends with the process of the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (told, open) = (told.clone(), open.clone());
                std::thread::spawn(move || {
                    let open_now = open.now.fetch_add(1, Ordering::SeqCst) + 1;
                    open.most.fetch_max(open_now, Ordering::SeqCst);
                    let connection = open.all.fetch_add(1, Ordering::SeqCst);
                    let _ = converse(&stream, connection, &told);
                    open.now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Receiver { address, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn converse(mut stream: &TcpStream, connection: usize, seen: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
    let from = stream.peer_addr()?.ip();
    let mut ehlo = String::new();
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    stream.write_all(b"220 there.test\r\n")?;
    while let Some(line) = lines.next().transpose()? {
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match verb {
            "EHLO" => {
                rest.clone_into(&mut ehlo);
                stream.write_all(b"250 there.test\r\n")?;
            }
            "DATA" => {
                stream.write_all(b"354 go\r\n")?;
                while lines.next().transpose()?.is_some_and(|line| line != ".") {}
                seen.lock().unwrap().push(Seen { from, ehlo: ehlo.clone(), connection });
                stream.write_all(b"250 taken\r\n")?;
            }
            "QUIT" => return stream.write_all(b"221 bye\r\n"),
            _ => stream.write_all(b"250 ok\r\n")?,
        }
    }
    Ok(())
}

/// A folder with a configuration and a rules file.
struct Setup {
    folder: tempfile::TempDir,
}

impl Setup {
    fn new(rules: &str, routes: &[(&str, &Receiver)]) -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let routes: String = routes
            .iter()
            .map(|(domain, there)| {
                format!("[[route]]\ndomain = \"{domain}\"\nhost = \"{}\"\n", there.address)
            })
            .collect();
        std::fs::write(folder.path().join("rules.toml"), rules).unwrap();
        let config = format!(
            "hostname = \"mta.test\"\n[spool]\npath = \"{}\"\nmin_free = \"1 MiB\"\n[delivery]\nshaping = \"{}\"\n\
             shaping_state = \"{}\"\n[dns]\nzone = \"{}\"\n[[listen]]\naddress = \"127.0.0.1:0\"\nrole = \"relay\"\n\
             [retry]\nfirst = \"1s\"\nlongest = \"2s\"\n{routes}",
            path("spool"),
            path("rules.toml"),
            path("state"),
            path("zone"),
        );
        std::fs::write(folder.path().join("zone"), "").unwrap();
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        Setup { folder }
    }

    fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("config.toml")
    }

    fn start(&self) -> Mta {
        Mta::with_config(&self.config())
    }
}

fn send(mta: &Mta, to: &str, count: usize) {
    let mut client = Client::connect(mta.address).unwrap();
    for _ in 0..count {
        client.send("joe@here.test", &[to], b"Subject: x\r\n\r\nhello\r\n").unwrap();
    }
}

fn loopback(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn mail_leaves_by_the_source_of_its_pool_and_around_what_is_not_plumbed_or_down() {
    let (there, closed) = (Receiver::start(&Arc::default()), TcpListener::bind("127.0.0.1:0").unwrap());
    let proxy = closed.local_addr().unwrap();
    drop(closed);
    let rules = format!(
        r#"
        [egress.sources.absent]
        ip = "192.0.2.77"
        [egress.sources.behind]
        ip = "127.0.0.5"
        proxy = "{proxy}"
        [egress.sources.good]
        ip = "127.0.0.2"
        ehlo = "a.mta.test"
        [egress.pools.all]
        mode = "failover"
        sources = ["absent", "behind", "good"]
        default = true
        "#
    );
    let setup = Setup::new(&rules, &[("there.test", &there)]);
    let mta = setup.start();
    send(&mta, "ann@there.test", 3);
    wait_until("all of it has left", LIMIT, || there.count() == 3);
    for seen in there.seen() {
        assert_eq!((seen.from, seen.ehlo.as_str()), (loopback(2), "a.mta.test"));
    }
    mta.terminate(LIMIT);
}

#[test]
fn idle_connections_count_and_make_room_for_others() {
    let open = Arc::new(Open::default());
    let (a, b) = (Receiver::start(&open), Receiver::start(&open));
    let rules = "[defaults.by.global]\nconcurrency = 1\n";
    let setup = Setup::new(rules, &[("a.test", &a), ("b.test", &b)]);
    let mta = setup.start();
    for turn in 1..=3 {
        send(&mta, "ann@a.test", 1);
        wait_until("a has it", LIMIT, || a.count() == turn);
        send(&mta, "ann@b.test", 1);
        wait_until("b has it", LIMIT, || b.count() == turn);
    }
    assert_eq!(open.most.load(Ordering::SeqCst), 1, "never two connections at a time");
    mta.terminate(LIMIT);
}

#[test]
fn a_connection_carries_as_many_messages_as_the_receiver_allows() {
    let there = Receiver::start(&Arc::default());
    let rules = "[defaults]\nconcurrency = 1\nmessages-per-connection = 2\n";
    let setup = Setup::new(rules, &[("there.test", &there)]);
    let mta = setup.start();
    send(&mta, "ann@there.test", 6);
    wait_until("all of it has left", LIMIT, || there.count() == 6);
    let seen = there.seen();
    for connection in 0..3 {
        assert_eq!(seen.iter().filter(|seen| seen.connection == connection).count(), 2, "{seen:?}");
    }
    mta.terminate(LIMIT);
}

fn today() -> String {
    let plan = run(&["warmup", "plan", "--schedule", "1"]);
    let shown: Value = serde_json::from_slice(&plan.stdout).unwrap();
    shown["days"][0]["date"].as_str().unwrap().to_owned()
}

#[test]
fn a_warm_up_keeps_its_cap_over_restarts_and_the_rest_waits() {
    let there = Receiver::start(&Arc::default());
    let rules = format!(
        "[egress.sources.new]\nip = \"127.0.0.2\"\n[egress.pools.cold]\nsources = [\"new\"]\ndefault = true\n\
         [warm-up.new]\nsource = \"new\"\nschedule = \"4*7\"\nstart = \"{}\"\noverflow = \"wait\"\n",
        today()
    );
    let setup = Setup::new(&rules, &[("there.test", &there)]);
    let mta = setup.start();
    send(&mta, "ann@there.test", 9);
    wait_until("the day's cap is used", LIMIT, || there.count() == 4);
    mta.terminate(LIMIT);
    let mta = setup.start();
    support::pause(Duration::from_secs(2));
    mta.kill();
    let mta = setup.start();
    support::pause(Duration::from_secs(2));
    assert_eq!(there.count(), 4, "neither an orderly end nor a crash opens the day anew");
    let state = std::fs::read_to_string(setup.folder.path().join("state")).unwrap();
    assert!(state.starts_with("postwright-shaping 1 running\n"), "{state}");
    assert!(state.contains(" step=0 ") && state.contains("\tnew\n"), "{state}");
    mta.terminate(LIMIT);
    let state = std::fs::read_to_string(setup.folder.path().join("state")).unwrap();
    assert!(state.starts_with("postwright-shaping 1 orderly\n"), "{state}");
}

#[test]
fn what_a_warm_up_does_not_take_leaves_by_the_warm_source() {
    let there = Receiver::start(&Arc::default());
    let rules = format!(
        "[egress.sources.new]\nip = \"127.0.0.2\"\n[egress.sources.warm]\nip = \"127.0.0.3\"\n\
         [egress.pools.cold]\nmode = \"failover\"\nsources = [\"new\", \"warm\"]\ndefault = true\n\
         [warm-up.new]\nsource = \"new\"\nschedule = \"4*7\"\nstart = \"{}\"\n",
        today()
    );
    let setup = Setup::new(&rules, &[("there.test", &there)]);
    let mta = setup.start();
    send(&mta, "ann@there.test", 9);
    wait_until("all of it has left", LIMIT, || there.count() == 9);
    let by_new = there.seen().iter().filter(|seen| seen.from == loopback(2)).count();
    assert_eq!(by_new, 4, "{:?}", there.seen());
    mta.terminate(LIMIT);
}

#[test]
fn serve_refuses_rules_and_states_that_it_cannot_keep() {
    let there = Receiver::start(&Arc::default());
    let refused = |rules: &str, state: Option<&str>, words: &[&str]| {
        let setup = Setup::new(rules, &[("there.test", &there)]);
        let config = std::fs::read_to_string(setup.config()).unwrap();
        match state {
            Some(state) => std::fs::write(setup.folder.path().join("state"), state).unwrap(),
            None => {
                let without: Vec<&str> =
                    config.lines().filter(|line| !line.starts_with("shaping_state")).collect();
                std::fs::write(setup.config(), without.join("\n")).unwrap();
            }
        }
        let (status, complaint) = Mta::try_with_config(&setup.config()).err().unwrap();
        assert_eq!(status.code(), Some(2), "{complaint}");
        for word in words {
            assert!(complaint.contains(word), "{word}: {complaint}");
        }
    };
    let warmup =
        "[egress.sources.a]\n[warm-up.a]\nsource = \"a\"\nschedule = \"56-days\"\nstart = \"2026-12-01\"\n";
    refused(warmup, None, &["warm-up.a", "delivery.shaping_state"]);
    refused("", Some("root:x:0:0\n"), &["not a state of shaping"]);
    refused("[defaults]\nmesages = \"1/s\"\n", None, &["line 2", "defaults.mesages", "messages"]);
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postwright")).args(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Bad input: exit 2, nothing on stdout, one line on stderr that has these words.
fn refuses(arguments: &[&str], words: &[&str]) {
    let output = run(arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {complaint}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(complaint.trim_end().lines().count(), 1, "{arguments:?}: {complaint}");
    for word in words {
        assert!(complaint.contains(word), "{arguments:?}: {word}: {complaint}");
    }
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn explain_tells_every_limit_its_origin_and_whether_it_can_bind() {
    let folder = tempfile::tempdir().unwrap();
    let rules = file(
        folder.path(),
        "rules.toml",
        "[defaults]\nmessages = [\"10/min\", \"700/h\"]\n[provider.gmail]\nconcurrency = 3\n",
    );
    let base = ["shaping", "explain", "--rules", &rules, "--domain", "example.org", "--source", "192.0.2.1"];
    let shown = json(&[&base[..], &["--mx", "aspmx.l.google.com"]].concat());
    assert_eq!(shown["path"]["provider"], "gmail");
    let limits = shown["limits"].as_array().unwrap();
    let find = |limit: &str| limits.iter().find(|one| one["limit"] == limit).unwrap();
    assert_eq!(find("10/min")["set_by"], "defaults");
    // Ten a minute are 600 an hour: 700 an hour cannot bind.
    assert_eq!((&find("10/min")["can_bind"], &find("700/h")["can_bind"]), (&true.into(), &false.into()));
    assert_eq!((&find("3")["kind"], &find("3")["set_by"]), (&"concurrency".into(), &"provider gmail".into()));
    let by_smart_host = json(&[&base[..], &["--via", "relay.example.net:587"]].concat());
    assert_eq!(by_smart_host["path"]["site"], "relay.example.net:587");
    assert_eq!(by_smart_host["path"]["domain"], "example.org");
}

#[test]
fn bad_input_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let explain = ["shaping", "explain", "--domain"];
    refuses(&[&explain[..], &["exa mple.org"]].concat(), &["--domain"]);
    refuses(&["shaping", "explain", "--source", "a"], &["--domain"]);
    refuses(&[&explain[..], &["example.org", "--provider", "gmial"]].concat(), &["gmial", "gmail"]);
    refuses(&[&explain[..], &["example.org", "--rules", "/no/such/file"]].concat(), &["/no/such/file"]);
    let rules = file(folder.path(), "bad.toml", "[defaults]\nconcurency = 5\n");
    refuses(
        &[&explain[..], &["example.org", "--rules", &rules]].concat(),
        &["line 2", "defaults.concurency", "did you mean \"concurrency\""],
    );
    let plan = ["warmup", "plan", "--schedule"];
    refuses(&[&plan[..], &["56-day"]].concat(), &["56-days"]);
    refuses(&[&plan[..], &["0*7"]].concat(), &["--schedule"]);
    refuses(&[&plan[..], &["56-days", "--start", "2026-02-30"]].concat(), &["--start"]);
    refuses(&[&plan[..], &["56-days", "--zone", "Mars"]].concat(), &["--zone"]);
}

#[test]
fn check_lists_every_error_with_its_place_and_the_nearest_valid_name() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[egress.sources.a]\nip = \"192.0.2.300\"\nehol = \"x\"\n[egress.pools.batch]\nmode = \"stiky\"\n\
                sources = [\"b\"]\n[warm-up.w]\nsource = \"a\"\nschedule = \"fast\"\n[automation.x]\n\
                threshold = \"3/h\"\naction = \"panic\"\nfor = \"2h\"\n";
    let rules = file(folder.path(), "bad.toml", text);
    let shown = json(&["shaping", "check", &rules]);
    assert_eq!(shown["valid"], false);
    let errors: Vec<(u64, &str, &Value)> = shown["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["line"].as_u64().unwrap(), e["key"].as_str().unwrap(), &e["nearest"]))
        .collect();
    for (line, key, nearest) in [
        (2, "egress.sources.a.ip", Value::Null),
        (3, "egress.sources.a.ehol", "ehlo".into()),
        (5, "egress.pools.batch.mode", "sticky".into()),
        (9, "warm-up.w.schedule", Value::Null),
        (12, "automation.x.action", Value::Null),
    ] {
        assert!(errors.contains(&(line, key, &nearest)), "{line} {key}: {errors:?}");
    }
}

#[test]
fn a_plan_is_the_calendar_of_its_schedule() {
    let shown = json(&["warmup", "plan", "--schedule", "56-days", "--start", "2026-12-01"]);
    let days = shown["days"].as_array().unwrap();
    // Eight weeks at a cap each, then a million: 2026-12-01 and 56 days are 2027-01-26.
    assert_eq!(days.len(), 57);
    let day = |n: usize| (days[n - 1]["date"].as_str().unwrap(), days[n - 1]["cap"].as_u64().unwrap());
    assert_eq!(day(1), ("2026-12-01", 500));
    assert_eq!(day(8), ("2026-12-08", 2000));
    assert_eq!(day(57), ("2027-01-26", 1_000_000));
}

#[test]
fn what_stays_here_is_not_charged_to_what_leaves() {
    // Both directions share the one limit that there is, if mail for the store counts at all.
    let (store, there) = (Receiver::start(&Arc::default()), Receiver::start(&Arc::default()));
    let setup = Setup::new("[defaults.by.global]\nmessages = \"3/h burst 3\"\n", &[("there.test", &there)]);
    let text = std::fs::read_to_string(setup.config()).unwrap();
    let local = format!("[[route]]\ndomain = \"here.test\"\nlmtp = \"{}\"\n", store.address);
    std::fs::write(setup.config(), text + &local).unwrap();
    let mta = setup.start();
    send(&mta, "ann@here.test", 10);
    wait_until("all of it is in the store", LIMIT, || store.count() == 10);
    send(&mta, "ann@there.test", 5);
    wait_until("what may leave has left", LIMIT, || there.count() == 3);
    // The limit is used up, and the store gets its mail all the same.
    send(&mta, "ann@here.test", 2);
    wait_until("the store has it", LIMIT, || store.count() == 12);
    support::pause(Duration::from_secs(1));
    assert_eq!(there.count(), 3);
    mta.terminate(LIMIT);
}
