//! The wire: just enough of RESP2 to run a script, over TCP or a Unix socket.
//!
//! Invariant: a reply is bounded in length and depth, and a connection on which anything went wrong is not used
//! again. Every call ends within the time-out.
//!
//! Why not a client crate: one command with integers in the answer is a page of code; the usual client brings
//! thirty crates. Whoever needs TLS, a cluster or sentinels implements [`ScriptLink`] over one.
//!
//! Standards: the Redis serialization protocol, version 2.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest line of a reply.
const LINE_MAX: u64 = 4096;
/// Most items of a reply.
const ITEMS_MAX: usize = 64;

/// Something that runs scripts on a server.
pub trait ScriptLink: Send {
    /// Runs a script with keys and arguments; its answer is a list of integers.
    ///
    /// An error means that the link is broken or the server refused; the next call should start anew.
    fn run(&mut self, script: &str, keys: &[&str], args: &[String]) -> io::Result<Vec<i64>>;
}

/// Where the server is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(std::path::PathBuf),
}

/// A link of our own: one connection, made anew when it fails.
pub struct RedisLink {
    address: Address,
    password: Option<Box<str>>,
    timeout: Duration,
    stream: Option<BufReader<Box<dyn Stream>>>,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl RedisLink {
    /// A link that connects on its first use. Each step (connecting, sending, waiting) ends within `timeout`.
    pub fn new(address: Address, timeout: Duration) -> RedisLink {
        RedisLink { address, password: None, timeout, stream: None }
    }

    /// Logs in with a password.
    #[must_use]
    pub fn with_password(self, password: &str) -> RedisLink {
        RedisLink { password: Some(password.into()), ..self }
    }

    fn connect(&self) -> io::Result<BufReader<Box<dyn Stream>>> {
        let stream: Box<dyn Stream> = match &self.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, self.timeout)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(self.timeout))?;
                stream.set_write_timeout(Some(self.timeout))?;
                Box::new(stream)
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                stream.set_read_timeout(Some(self.timeout))?;
                stream.set_write_timeout(Some(self.timeout))?;
                Box::new(stream)
            }
        };
        let mut stream = BufReader::new(stream);
        if let Some(password) = &self.password {
            send(stream.get_mut(), &["AUTH", password])?;
            read_reply(&mut stream)?;
        }
        Ok(stream)
    }
}

impl ScriptLink for RedisLink {
    fn run(&mut self, script: &str, keys: &[&str], args: &[String]) -> io::Result<Vec<i64>> {
        // Taken out, so that an error leaves no connection behind with half a reply in it.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let count = keys.len().to_string();
        let mut words: Vec<&str> = vec!["EVAL", script, &count];
        words.extend(keys);
        words.extend(args.iter().map(String::as_str));
        send(stream.get_mut(), &words)?;
        let reply = read_reply(&mut stream)?;
        self.stream = Some(stream);
        Ok(reply)
    }
}

impl fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLink").field("address", &self.address).finish_non_exhaustive()
    }
}

fn send(stream: &mut impl Write, words: &[&str]) -> io::Result<()> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    stream.write_all(&request)?;
    stream.flush()
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(LINE_MAX).read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the server's reply breaks off or is too long"))
        }
    }
}

/// A status, an integer, or a list of integers.
fn read_reply(stream: &mut impl BufRead) -> io::Result<Vec<i64>> {
    let invalid =
        |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("unexpected reply {what:?}"));
    let line = read_line(stream)?;
    let number = |text: &str| text.parse::<i64>().map_err(|_| invalid(text));
    match line.split_at_checked(1) {
        Some(("+", _)) => Ok(Vec::new()),
        Some((":", value)) => Ok(vec![number(value)?]),
        Some(("-", error)) => Err(io::Error::other(format!("the server says: {error}"))),
        Some(("*", count)) => {
            let count = count.parse::<usize>().ok().filter(|count| *count <= ITEMS_MAX);
            let count = count.ok_or_else(|| invalid(&line))?;
            let item = |_| match read_line(stream)?.strip_prefix(':') {
                Some(value) => number(value),
                None => Err(invalid("not an integer")),
            };
            (0..count).map(item).collect()
        }
        _ => Err(invalid(&line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_and_bounded() {
        let read = |text: &str| read_reply(&mut text.as_bytes());
        assert_eq!(read("*3\r\n:1\r\n:-2\r\n:30\r\n").unwrap(), [1, -2, 30]);
        assert_eq!(read(":7\r\n").unwrap(), [7]);
        assert_eq!(read("+OK\r\n").unwrap(), []);
        assert!(read("-NOSCRIPT no\r\n").unwrap_err().to_string().contains("NOSCRIPT no"));
        for bad in
            ["", "\r\n", "*99999999999\r\n", "*2\r\n:1\r\n", "*1\r\n$1\r\na\r\n", ":1", "é\r\n", ":x\r\n"]
        {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert!(read(&":1".repeat(9000)).is_err());
    }
}
