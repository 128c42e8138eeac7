//! Disks that fail: a layer between a program and its files, and what a power cut would have left of them.
//!
//! `shim/disk.c` is compiled by the test and loaded into a child process. It makes calls fail, or writes down in order what
//! the child did below one folder; [`Disk`] replays that and knows what was synced.
//!
//! Invariant: the model is as strict as POSIX allows. What was written and not synced may be gone, in part or in another
//! order; the name of a new file may be gone until its *folder* was synced, and so may a renaming or a removal. [`Names`]
//! says what a file system adds to that.
//!
//! Not here: what a program promised (the test knows).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peers;

/// The layer, compiled into `into`; `None` where there is no C compiler, or no Linux.
///
/// # Panics
/// If it does not compile where there is one.
pub fn layer(into: &Path) -> Option<PathBuf> {
    let compiler = cfg!(target_os = "linux").then(|| peers::find("cc")).flatten()?;
    let source = crate::workspace_root().join("testkit").join("shim").join("disk.c");
    let library = into.join("disk.so");
    let mut command = Command::new(compiler);
    command.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).args(["-ldl", "-lpthread"]);
    let done = command.status().expect("the compiler runs");
    assert!(done.success(), "shim/disk.c compiles");
    Some(library)
}

/// A folder of the test's own, in memory where there is such a place: for tests that play the disk themselves, or that a real
/// one would only make slow.
///
/// # Panics
/// If none can be made.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

/// One thing that was done.
#[derive(Debug)]
pub enum Record {
    /// Octets were written to a file.
    Write {
        /// The file.
        inode: u64,
        /// Where.
        at: u64,
        /// What.
        data: Vec<u8>,
    },
    /// A file became shorter or longer.
    Resize {
        /// The file.
        inode: u64,
        /// Its length now.
        len: u64,
    },
    /// A file was made.
    Create {
        /// The file.
        inode: u64,
        /// Its name.
        path: PathBuf,
    },
    /// A folder was made.
    Folder {
        /// Its name.
        path: PathBuf,
    },
    /// A file or folder got another name.
    Rename {
        /// Before.
        from: PathBuf,
        /// After.
        to: PathBuf,
    },
    /// A file or folder was removed.
    Remove {
        /// Its name.
        path: PathBuf,
    },
    /// A file or folder was synced.
    Sync {
        /// The file or folder.
        inode: u64,
        /// Its name.
        path: PathBuf,
    },
    /// The program said something on its standard output.
    Say {
        /// What.
        data: Vec<u8>,
    },
}

/// Reads what the layer wrote down.
pub fn read_log(path: &Path) -> io::Result<Vec<Record>> {
    let mut input = io::BufReader::new(std::fs::File::open(path)?);
    let mut records = Vec::new();
    loop {
        let mut head = [[0; 8]; 6];
        match input.read_exact(head.as_flattened_mut()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(records),
            Err(error) => return Err(error),
        }
        let [kind, inode, a, _, text_len, len] = head.map(u64::from_le_bytes);
        let mut take = |len: u64| {
            let mut octets = Vec::new();
            input.by_ref().take(len).read_to_end(&mut octets).map(|_| octets)
        };
        let (text, data) = (take(text_len)?, take(len)?);
        let path = |octets: &[u8]| PathBuf::from(OsStr::from_bytes(octets));
        let unknown = || io::Error::other(format!("a record of kind {kind}"));
        records.push(match u8::try_from(kind).map_err(|_| unknown())? {
            b'W' => Record::Write { inode, at: a, data },
            b'T' => Record::Resize { inode, len: a },
            b'C' => Record::Create { inode, path: path(&text) },
            b'M' => Record::Folder { path: path(&text) },
            b'R' => Record::Rename { from: path(&text), to: path(&data) },
            b'U' => Record::Remove { path: path(&text) },
            b'S' => Record::Sync { inode, path: path(&text) },
            b'P' => Record::Say { data },
            _ => return Err(unknown()),
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Folder,
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: u64, data: Vec<u8> },
    Resize(u64),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        let size = |octets: u64| usize::try_from(octets).expect("a file of a test");
        match self {
            Change::Resize(len) => content.resize(size(*len), 0),
            Change::Write { at, data } => {
                let (at, end) = (size(*at), size(*at) + data.len());
                content.resize(content.len().max(end), 0);
                content[at..end].copy_from_slice(data);
            }
        }
    }
}

/// What happened to names, in the folder that has to be synced for it to last.
#[derive(Debug, Clone)]
enum Naming {
    Add(PathBuf, Node),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Naming::Add(path, node) => drop(names.insert(path.clone(), *node)),
            Naming::Remove(path) => drop(names.remove(path)),
            Naming::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }

    fn folder(&self) -> Option<&Path> {
        match self {
            Naming::Add(path, _) | Naming::Remove(path) | Naming::Rename(_, path) => path.parent(),
        }
    }
}

#[derive(Debug, Default)]
struct File {
    synced: Vec<u8>,
    since: Vec<Change>,
}

/// How much of what was not synced a power cut leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing.
    Nothing,
    /// Each page and each name by the throw of a coin, whatever came first.
    Some,
}

/// What makes the name of a new file last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// A sync of its folder: all that POSIX promises.
    #[default]
    ByFolder,
    /// A sync of the file too, as on ext4, XFS and btrfs.
    ByFile,
}

/// The files below one folder: as they are, and as far as they are safe.
#[derive(Debug, Default)]
pub struct Disk {
    durable: Names,
    files: Vec<File>,
    inodes: BTreeMap<u64, usize>,
    names: BTreeMap<PathBuf, Node>,
    safe_names: BTreeMap<PathBuf, Node>,
    unsafe_names: Vec<Naming>,
}

const PAGE: usize = 4096;

impl Disk {
    /// An empty one on a file system of this kind.
    pub fn new(durable: Names) -> Disk {
        Disk { durable, ..Disk::default() }
    }

    /// Does what was done.
    pub fn replay(&mut self, record: &Record) {
        match record {
            Record::Say { .. } => {}
            Record::Write { inode, at, data } => {
                self.change(*inode, Change::Write { at: *at, data: data.clone() });
            }
            Record::Resize { inode, len } => self.change(*inode, Change::Resize(*len)),
            Record::Create { inode, path } => {
                self.files.push(File::default());
                // A number that was used before belongs to the new file from now on.
                self.inodes.insert(*inode, self.files.len() - 1);
                self.name(Naming::Add(path.clone(), Node::File(self.files.len() - 1)));
            }
            Record::Folder { path } => self.name(Naming::Add(path.clone(), Node::Folder)),
            Record::Rename { from, to } => self.name(Naming::Rename(from.clone(), to.clone())),
            Record::Remove { path } => self.name(Naming::Remove(path.clone())),
            Record::Sync { inode, path } => {
                self.find_renamed(*inode, path);
                self.sync(path);
            }
        }
    }

    fn change(&mut self, inode: u64, change: Change) {
        if let Some(file) = self.inodes.get(&inode).and_then(|number| self.files.get_mut(*number)) {
            file.since.push(change);
        }
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.unsafe_names.push(naming);
    }

    /// Some renamings are asked of the kernel behind the layer's back. They show when the file is next synced under a name
    /// that it did not have; that its folder was synced before it was renamed is all that is assumed.
    fn find_renamed(&mut self, inode: u64, path: &Path) {
        let Some(node) = self.inodes.get(&inode).map(|number| Node::File(*number)) else { return };
        if self.names.get(path) == Some(&node) {
            return;
        }
        let before = self.names.iter().find(|(_, named)| **named == node).map(|(name, _)| name.clone());
        if let Some(before) = before {
            self.name(Naming::Rename(before, path.to_owned()));
        }
    }

    fn sync(&mut self, path: &Path) {
        if let Some(node @ Node::File(number)) = self.names.get(path) {
            if let Some(File { synced, since }) = self.files.get_mut(*number) {
                since.drain(..).for_each(|change| change.apply(synced));
            }
            if self.durable == Names::ByFile {
                let of_it =
                    |naming: &Naming| matches!(naming, Naming::Add(name, of) if name == path && of == node);
                if let Some(at) = self.unsafe_names.iter().position(of_it) {
                    self.unsafe_names.remove(at).apply(&mut self.safe_names);
                }
            }
            return;
        }
        let safe_names = &mut self.safe_names;
        self.unsafe_names.retain(|naming| {
            let stays = naming.folder() != Some(path);
            if !stays {
                naming.apply(safe_names);
            }
            stays
        });
    }

    /// Puts what is left after a power cut at this moment into `to`, in place of `from`; `coin` says what happens to
    /// what was not synced.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn cut_power(
        &self,
        cut: Cut,
        mut coin: impl FnMut() -> bool,
        from: &Path,
        to: &Path,
    ) -> io::Result<()> {
        let mut toss = || cut == Cut::Some && coin();
        let mut names = self.safe_names.clone();
        for naming in &self.unsafe_names {
            if toss() {
                naming.apply(&mut names);
            }
        }
        // In order, so that folders come before what is in them. What lies in a folder whose name is gone, is gone.
        for (path, node) in &names {
            let Ok(below) = path.strip_prefix(from) else { continue };
            let target = to.join(below);
            if !target.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match node {
                Node::Folder => std::fs::create_dir_all(target)?,
                Node::File(number) => {
                    let Some(file) = self.files.get(*number) else { continue };
                    std::fs::write(target, file.after(&mut toss))?;
                }
            }
        }
        Ok(())
    }
}

impl File {
    fn after(&self, toss: &mut impl FnMut() -> bool) -> Vec<u8> {
        let mut content = self.synced.clone();
        for change in &self.since {
            match change {
                Change::Resize(_) if toss() => change.apply(&mut content),
                Change::Resize(_) => {}
                Change::Write { at, data } => {
                    let mut at = *at;
                    for page in data.chunks(PAGE) {
                        if toss() {
                            Change::Write { at, data: page.to_vec() }.apply(&mut content);
                        }
                        at += page.len() as u64;
                    }
                }
            }
        }
        content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        Path::new("/disk").join(name)
    }

    /// What is in the folder after a cut that leaves nothing unsynced.
    fn left(records: &[Record]) -> Vec<(String, Vec<u8>)> {
        let mut disk = Disk::default();
        records.iter().for_each(|record| disk.replay(record));
        let to = tempfile::tempdir().unwrap();
        disk.cut_power(Cut::Nothing, || false, Path::new("/disk"), to.path()).unwrap();
        let mut found: Vec<_> = std::fs::read_dir(to.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
            })
            .collect();
        found.sort();
        found
    }

    fn write(at: u64, data: &[u8]) -> Record {
        Record::Write { inode: 1, at, data: data.to_vec() }
    }

    #[test]
    fn what_was_not_synced_is_gone_and_a_name_needs_its_folder() {
        let create = || Record::Create { inode: 1, path: path("a") };
        let sync = |name: &str| Record::Sync { inode: 0, path: path(name) };
        let folder = || Record::Sync { inode: 0, path: "/disk".into() };
        assert_eq!(left(&[create(), write(0, b"x"), sync("a")]), []);
        assert_eq!(left(&[create(), write(0, b"x"), folder()]), [("a".into(), vec![])]);
        let both = [create(), write(0, b"xy"), sync("a"), folder(), write(1, b"z")];
        assert_eq!(left(&both), [("a".into(), b"xy".to_vec())]);
        let renamed = [
            create(),
            write(0, b"x"),
            sync("a"),
            folder(),
            Record::Rename { from: path("a"), to: path("b") },
        ];
        assert_eq!(left(&renamed), [("a".into(), b"x".to_vec())]);
        let removed = [create(), sync("a"), folder(), Record::Remove { path: path("a") }];
        assert_eq!(left(&removed).len(), 1, "a removal needs its folder too");

        let mut disk = Disk::new(Names::ByFile);
        [create(), write(0, b"x"), sync("a")].iter().for_each(|record| disk.replay(record));
        assert_eq!(disk.safe_names.len(), 1, "where a file brings its name");
    }
}
