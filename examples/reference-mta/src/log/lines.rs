//! Log lines on their way to standard error, which may be on a full disk, read by nobody, or gone.
//!
//! Invariant: whoever logs neither waits nor fails. A line that finds no room, or that cannot be written, is counted,
//! and the count is told as soon as something can be written again. At most [`WAITING`] lines are held.
//!
//! Why: mail goes on when the log cannot. A log that blocks holds up every session, and one that fails takes them down.
//!
//! Not here: what is logged (log.rs), where standard error leads to (whoever starts the program).

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Most lines that wait to be written.
const WAITING: usize = 10_000;
/// How long the end of the program waits for the last lines.
const AT_THE_END: Duration = Duration::from_secs(1);

enum Item {
    Line(Vec<u8>),
    /// Everything before this is written: says so.
    Mark(SyncSender<()>),
}

/// Takes lines.
pub(super) struct Lines {
    to: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

/// Lines are being written; when this is dropped, those that wait are given a second.
pub(crate) struct Writing(SyncSender<Item>);

/// Starts a thread that writes what it is given to `out`.
pub(super) fn to(out: impl Write + Send + 'static) -> io::Result<(Lines, Writing)> {
    let (to, lines) = sync_channel(WAITING);
    let lost = Arc::<AtomicU64>::default();
    let counted = lost.clone();
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&lines, out, &counted))?;
    Ok((Lines { to: to.clone(), lost }, Writing(to)))
}

fn write(lines: &Receiver<Item>, mut out: impl Write, lost: &AtomicU64) {
    for item in lines {
        let line = match item {
            Item::Line(line) => line,
            Item::Mark(done) => {
                // Whoever asked may have stopped waiting.
                let _ = done.try_send(());
                continue;
            }
        };
        let missing = lost.load(Ordering::Relaxed);
        if missing == 0 || tell(&mut out, missing).is_ok() {
            lost.fetch_sub(missing, Ordering::Relaxed);
            if out.write_all(&line).and_then(|()| out.flush()).is_ok() {
                continue;
            }
        }
        lost.fetch_add(1, Ordering::Relaxed);
    }
}

fn tell(out: &mut impl Write, missing: u64) -> io::Result<()> {
    let note = format!("{missing} lines of the log were lost: they could not be written, or not so fast\n");
    out.write_all(note.as_bytes())
}

impl Drop for Writing {
    fn drop(&mut self) {
        let (done, is_done) = sync_channel(1);
        if self.0.try_send(Item::Mark(done)).is_ok() {
            let _ = is_done.recv_timeout(AT_THE_END);
        }
    }
}

/// The subscriber writes each line by one call.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.to.try_send(Item::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// A disk that is full while it is told to be.
    #[derive(Clone, Default)]
    struct Disk {
        full: Arc<AtomicBool>,
        text: Arc<Mutex<String>>,
    }

    impl Write for Disk {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            if self.full.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.text.lock().unwrap().push_str(std::str::from_utf8(octets).unwrap());
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told() {
        let disk = Disk::default();
        let (lines, writing) = to(disk.clone()).unwrap();
        let say = |text: &str| (&lines).write_all(text.as_bytes()).unwrap();
        let settle = || drop(Writing(writing.0.clone()));
        say("one\n");
        settle();
        disk.full.store(true, Ordering::SeqCst);
        (0..3).for_each(|_| say("gone\n"));
        settle();
        disk.full.store(false, Ordering::SeqCst);
        say("two\n");
        settle();
        let text = disk.text.lock().unwrap().clone();
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            ["one", "3 lines of the log were lost: they could not be written, or not so fast", "two"]
        );
    }

    /// One that nobody reads: it blocks until it is let go.
    struct Stuck(Receiver<()>, Disk);

    impl Write for Stuck {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            // Once the other end is dropped nothing blocks any more.
            let _ = self.0.recv();
            self.1.write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_hangs_holds_nobody_up() {
        let (free, blocked) = sync_channel::<()>(0);
        let disk = Disk::default();
        let (lines, writing) = to(Stuck(blocked, disk.clone())).unwrap();
        // One is being written, so many wait, and the others are lost; none of them waits here.
        for _ in 0..WAITING + 500 {
            (&lines).write_all(b"x\n").unwrap();
        }
        let lost = lines.lost.load(Ordering::Relaxed);
        assert!((499..=500).contains(&lost), "{lost}");
        drop(free);
        while lines.lost.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        drop(writing);
        let text = disk.text.lock().unwrap().clone();
        assert_eq!(text.matches("lines of the log were lost").count(), 1, "told once");
        assert_eq!(
            text.lines().filter(|line| *line == "x").count(),
            WAITING + 500 - usize::try_from(lost).unwrap()
        );
    }
}
