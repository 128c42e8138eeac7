//! The control socket of `serve`: how `postwright queue` and `postwright shaping events` reach a running MTA.
//!
//! One request a connection: a line of JSON in, lines of JSON out, the last of which is `{"ok":true}` or
//! `{"error":...}`.
//!
//! Invariant: only who owns the process can connect, from the first moment on; a client that says nothing, or too
//! much, costs one of a few slots for a few seconds.
//!
//! Not here: what the requests are (request.rs), the command line (commands/queue.rs).

mod request;
mod show;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postwright::shaping::Shaper;
use postwright::{Metrics, Operator};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

pub(crate) use request::{Request, Select};

use crate::commands::Failure;

/// Longest request, in octets.
const REQUEST: u64 = 64 * 1024;
/// How long a client may take, for its request and to read what it is told.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long we wait for an answer: twice what the server grants a client, which may have to wait for another to end.
const ANSWER: Duration = Duration::from_secs(60);
/// Clients at a time; others wait in the kernel's queue.
const CLIENTS: usize = 8;

/// An open control socket; its file is removed when it is dropped.
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// What requests are answered from.
pub(crate) struct Desk {
    pub(crate) operator: Operator,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn postwright::core::Clock>,
    /// What sets the pace, if there is a rules file.
    pub(crate) shaper: Option<Arc<Shaper>>,
}

impl Control {
    /// Opens the socket, in the place of one that an earlier process left. The spool's lock sees to it that no other
    /// process still serves it.
    pub(crate) fn open(path: &Path) -> Result<Control, Failure> {
        use std::os::unix::fs::FileTypeExt;
        let wrong = |error: io::Error| Failure::new(format!("control.socket {}: {error}", path.display()));
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let refused = |what: &str| Err(Failure::new(format!("control.socket {}: {what}", path.display())));
        if !parent.is_dir() {
            return refused("its folder does not exist; make it, for the account that runs this");
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return refused("another process answers there; give each MTA a socket of its own");
        }
        if std::fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
            return refused("there is something that is no socket; move it away, or choose another path");
        }
        // Made where nobody else can look, so that it never has other permissions than its own.
        let private = tempfile::Builder::new().prefix(".pw").tempdir_in(parent).map_err(wrong)?;
        let made = private.path().join("s");
        let listener = UnixListener::bind(&made).map_err(wrong)?;
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
        std::fs::rename(&made, path).map_err(wrong)?;
        Ok(Control { listener, path: path.to_owned() })
    }

    /// Answers until it is dropped, if there is a socket.
    pub(crate) async fn run(control: Option<&Control>, desk: Desk) {
        match control {
            Some(control) => control.serve(Arc::new(desk)).await,
            None => std::future::pending().await,
        }
    }

    async fn serve(&self, desk: Arc<Desk>) {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = clients.join_next(), if !clients.is_empty() => {}
                accepted = self.listener.accept(), if clients.len() < CLIENTS => match accepted {
                    Ok((stream, _)) => {
                        let desk = desk.clone();
                        clients.spawn(async move {
                            drop(tokio::time::timeout(PATIENCE, answer(stream, &desk)).await);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "control socket");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // A file that stays is replaced by the next process.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(mut stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    BufReader::new(reader.take(REQUEST)).read_until(b'\n', &mut line).await?;
    let outcome = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => request.answer(desk).await,
        Err(error) => Err(format!("not a request: {error}")),
    };
    let mut text = String::new();
    let last = match outcome {
        Ok(lines) => {
            lines.iter().for_each(|line| text += &format!("{line}\n"));
            serde_json::json!({ "ok": true })
        }
        Err(what) => serde_json::json!({ "error": what }),
    };
    text += &format!("{last}\n");
    writer.write_all(text.as_bytes()).await?;
    writer.shutdown().await
}

/// Asks a running MTA: the lines of its answer.
pub(crate) async fn ask(path: &Path, request: &Request) -> Result<Vec<serde_json::Value>, Failure> {
    let shown = path.display();
    let lost = |error: io::Error| Failure::new(format!("{shown}: {error}"));
    let mut stream = UnixStream::connect(path).await.map_err(|error| {
        Failure::new(format!(
            "{shown}: {error}; is `postwright serve` running with [control] socket = {path:?}?"
        ))
    })?;
    let line = serde_json::to_string(request).map_err(Failure::new)? + "\n";
    let mut text = String::new();
    let talk = async {
        stream.write_all(line.as_bytes()).await?;
        stream.read_to_string(&mut text).await
    };
    tokio::time::timeout(ANSWER, talk)
        .await
        .map_err(|_| {
            Failure::new(format!(
                "{shown}: no answer within {ANSWER:?}; the MTA may be overloaded, try again"
            ))
        })?
        .map_err(lost)?;
    let mut lines = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<serde_json::Value>, _>>()
        .map_err(|error| Failure::new(format!("{shown}: {error}")))?;
    let last = lines.pop().unwrap_or_default();
    match (last["error"].as_str(), last["ok"].as_bool()) {
        (Some(error), _) => Err(Failure::new(error)),
        (None, Some(true)) => Ok(lines),
        _ => Err(Failure::new(format!("{shown}: the answer was cut off"))),
    }
}
