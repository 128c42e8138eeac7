//! `delivery.shaping_redis`: where the server is that counts for several nodes.
//!
//! Invariant: a password that stands in it is never shown.
//!
//! Not here: the counts (the library), the connection (`shared_counts.rs`).

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

/// `redis://HOST:PORT`, `redis://:PASSWORD@HOST:PORT`, or `unix:PATH`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum RedisServer {
    Tcp { host: String, port: u16, password: Option<String> },
    Unix(PathBuf),
}

/// The port that Redis and Valkey take.
const PORT: u16 = 6379;

impl TryFrom<String> for RedisServer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // The text is not repeated: it may have a password in it.
        let wrong = || {
            "not a Redis server; write it like redis://192.0.2.1:6379, redis://:PASSWORD@HOST:6379 or unix:/run/redis.sock"
                .to_owned()
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(RedisServer::Unix(path.into())) } else { Err(wrong()) };
        }
        let rest = text.strip_prefix("redis://").ok_or_else(wrong)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (password, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login.strip_prefix(':').ok_or_else(wrong)?.to_owned()), place),
            None => (None, rest),
        };
        // The colons of an IPv6 address stand in brackets.
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (place, PORT),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains('/') {
            return Err(wrong());
        }
        Ok(RedisServer::Tcp { host: host.to_owned(), port, password })
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisServer::Tcp { host, port, .. } => write!(f, "redis://{host}:{port}"),
            RedisServer::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_passwords_are_not_shown() {
        let read = |text: &str| RedisServer::try_from(text.to_owned());
        let tcp = |host: &str, port, password: Option<&str>| {
            Ok(RedisServer::Tcp { host: host.to_owned(), port, password: password.map(str::to_owned) })
        };
        assert_eq!(read("redis://192.0.2.1:7000"), tcp("192.0.2.1", 7000, None));
        assert_eq!(read("redis://counts.example/"), tcp("counts.example", 6379, None));
        assert_eq!(read("redis://[2001:db8::1]"), tcp("2001:db8::1", 6379, None));
        assert_eq!(read("redis://:p@ss:w@h:1"), tcp("h", 1, Some("p@ss:w")));
        assert_eq!(read("unix:/run/r.sock"), Ok(RedisServer::Unix("/run/r.sock".into())));
        for bad in
            ["", "192.0.2.1", "redis://", "redis://user:secret@h", "redis://h:x", "unix:r.sock", "rediss://h"]
        {
            let complaint = read(bad).unwrap_err();
            assert!(!complaint.contains("secret"), "{complaint}");
        }
        assert_eq!(format!("{:?}", read("redis://:secret@h:1").unwrap()), "redis://h:1");
    }
}
