//! A receiver on plain sockets and threads: accepts everything and remembers it by recipient and body.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One message as it came: dots removed, line ends kept.
#[derive(Debug, Clone)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    pub body: Vec<u8>,
}

impl Mail {
    /// The value of the first header field of that name, unfolded lines only.
    pub fn field(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let header = text.split("\r\n\r\n").next()?.to_owned();
        header.split("\r\n").find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

#[derive(Default)]
struct State {
    mails: Mutex<Vec<Mail>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
    stop: AtomicBool,
    /// Milliseconds between the dot and the 250.
    slow: AtomicUsize,
    /// So many connections are still to be cut behind the dot.
    cuts: AtomicUsize,
    /// Messages whose 250 went out.
    acknowledged: AtomicUsize,
    refused: Mutex<Vec<String>>,
    refusals: AtomicUsize,
    /// What is done once, when the next body is there and before its 250.
    at_the_dot: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Where the value of X-Number is written, one a line, before the 250.
    journal: Mutex<Option<std::fs::File>>,
}

pub struct Receiver {
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Receiver {
    pub fn start() -> Receiver {
        Receiver::start_on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// The same on a socket that listens already.
    pub fn start_on(listener: TcpListener) -> Receiver {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                std::thread::spawn(move || {
                    let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
                    shared.most_open.fetch_max(open, Ordering::SeqCst);
                    // A peer that is killed ends its connection in the middle: that is the test.
                    let _ = converse(stream, &shared);
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Receiver { address, state }
    }

    pub fn answer_after(&self, span: Duration) {
        self.state.slow.store(usize::try_from(span.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Takes the next `times` messages and closes the connection instead of saying 250.
    pub fn hang_up_after_the_dot(&self, times: usize) {
        self.state.cuts.store(times, Ordering::SeqCst);
    }

    /// Does this when the next body is there, before its 250.
    pub fn at_the_next_dot(&self, what: impl FnOnce() + Send + 'static) {
        *self.state.at_the_dot.lock().unwrap() = Some(Box::new(what));
    }

    /// Writes the X-Number of each body to a file, before its 250.
    pub fn write_down(&self, file: std::fs::File) {
        *self.state.journal.lock().unwrap() = Some(file);
    }

    /// Says 550 5.1.1 to this recipient from now on.
    pub fn refuse(&self, recipient: &str) {
        self.state.refused.lock().unwrap().push(recipient.to_owned());
    }

    /// How many recipients were refused.
    pub fn refusals(&self) -> usize {
        self.state.refusals.load(Ordering::SeqCst)
    }

    /// Messages whose 250 went out.
    pub fn acknowledged(&self) -> usize {
        self.state.acknowledged.load(Ordering::SeqCst)
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.state.mails.lock().unwrap().clone()
    }

    /// How many messages came with each value of a field. Nothing is copied: there may be many thousands.
    pub fn tally(&self, field: &str) -> BTreeMap<String, usize> {
        let mut tally = BTreeMap::new();
        for mail in self.state.mails.lock().unwrap().iter() {
            *tally.entry(mail.field(field).unwrap_or_default()).or_insert(0) += 1;
        }
        tally
    }

    pub fn count(&self) -> usize {
        self.state.mails.lock().unwrap().len()
    }

    /// Most connections that were open at one time.
    pub fn most_open(&self) -> usize {
        self.state.most_open.load(Ordering::SeqCst)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        // Wakes the accept loop.
        let _ = TcpStream::connect(self.address);
    }
}

fn converse(stream: TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    let mut say = |text: &str| out.write_all(format!("{text}\r\n").as_bytes());
    let mut mail = Mail { from: String::new(), to: Vec::new(), body: Vec::new() };
    say("220 receiver.test")?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        let verb = text.get(..4).unwrap_or("").to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => say("250-receiver.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 104857600")?,
            "MAIL" => {
                mail = Mail { from: path(&text), to: Vec::new(), body: Vec::new() };
                say("250 ok")?;
            }
            "RCPT" => {
                if state.refused.lock().unwrap().contains(&path(&text)) {
                    state.refusals.fetch_add(1, Ordering::SeqCst);
                    say("550 5.1.1 no such user")?;
                    continue;
                }
                mail.to.push(path(&text));
                say("250 ok")?;
            }
            "DATA" if mail.to.is_empty() => say("554 5.5.1 no valid recipients")?,
            "DATA" => {
                say("354 go")?;
                mail.body = body(&mut input)?;
                if let Some(file) = &mut *state.journal.lock().unwrap() {
                    // One write: it is there or not, whenever the process is killed.
                    file.write_all(format!("{}\n", mail.field("X-Number").unwrap_or_default()).as_bytes())?;
                }
                if let Some(what) = state.at_the_dot.lock().unwrap().take() {
                    what();
                }
                let slow = state.slow.load(Ordering::SeqCst);
                super::pause(Duration::from_millis(u64::try_from(slow).unwrap_or(0)));
                state.mails.lock().unwrap().push(mail.clone());
                let cut = |cuts: usize| cuts.checked_sub(1);
                if state.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, cut).is_ok() {
                    return Ok(());
                }
                say("250 taken")?;
                state.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            "QUIT" => return say("221 bye"),
            _ => say("250 ok")?,
        }
    }
}

fn path(command: &str) -> String {
    let start = command.find('<').map_or(0, |i| i + 1);
    let end = command.rfind('>').unwrap_or(command.len());
    command.get(start..end).unwrap_or("").to_owned()
}

fn body(input: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(body);
        }
        body.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}
