//! What can be done with a directory, and through it with paths?

use super::file::File;
use super::node::Node;
use super::options::OpenOptions;
use crate::error::{Error, Result};
use crate::io::{self, Handle, Metadata, SetAttributes, WriteFlags};
use crate::layout::{FileKind, INODE_SEQUENTIAL};
use crate::namespace::{self, Follow, Last, Made, New, RenameMode, What, entry};
use crate::tree;
use crate::units::{Ino, MAX_FILE_BYTES};
use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::ops::{ControlFlow, Deref};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// An open directory. Every path is relative to it, unless it begins with a slash: then it is the store's root that it
/// starts from.
#[derive(Clone, Debug)]
pub struct Dir {
    pub(super) node: Node,
}

impl Deref for Dir {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

impl Dir {
    pub(super) fn new(handle: Handle) -> Self {
        Self { node: Node { handle } }
    }

    fn handle(&self) -> &Handle {
        &self.node.handle
    }

    /// The directory and name at the end of a path where something is to be made, removed or renamed.
    fn last(&self, path: &Path) -> Result<Last> {
        namespace::to_last(self.handle(), bytes(path))
    }

    fn new_inode(&self, kind: FileKind, mode: u32, owner: Option<(u32, u32)>) -> New<'static> {
        let (uid, gid) = owner.unwrap_or_else(super::process_owner);
        New { kind, permissions: mode, uid, gid, target: &[], flags: 0, capacity: 0, durability: None }
    }

    /// The file that `options` have made.
    fn new_file(&self, options: &OpenOptions) -> Result<New<'static>> {
        if options.capacity > MAX_FILE_BYTES || options.capacity > 0 && !options.sequential {
            return Err(Error::InvalidArgument(
                "a capacity is that of a sequential file, at most 2^62 bytes",
            ));
        }
        let flags = if options.sequential { INODE_SEQUENTIAL } else { 0 };
        let new = self.new_inode(FileKind::Regular, options.mode, options.owner);
        Ok(New { flags, capacity: options.capacity, durability: options.durability, ..new })
    }

    /// Opens a file as `options` say.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Exists`], [`Error::IsDirectory`], options that do not fit each other, no space,
    /// damage.
    pub fn open(&self, path: impl AsRef<Path>, options: &OpenOptions) -> Result<File> {
        let path = bytes(path.as_ref());
        let makes = options.create || options.create_new;
        if (makes || options.truncate) && !options.writes() || !(options.read || options.writes()) {
            return Err(Error::InvalidArgument(
                "open for reading, writing or appending; making needs writing",
            ));
        }
        let (handle, made) =
            if makes { self.open_or_make(path, options)? } else { (self.find(path, options)?, false) };
        let file = self.file(handle, options)?;
        // What is in a file made just now, somebody else who found it has written.
        if options.truncate && !made && !file.is_empty() {
            file.set_len(0)?;
        }
        Ok(file)
    }

    fn find(&self, path: &[u8], options: &OpenOptions) -> Result<Handle> {
        let follow = if options.follow { Follow::Yes } else { Follow::No };
        namespace::resolve(self.handle(), path, follow)
    }

    /// The file at the path, and whether it was made for this.
    fn open_or_make(&self, path: &[u8], options: &OpenOptions) -> Result<(Handle, bool)> {
        let new = self.new_file(options)?;
        let last = namespace::to_last(self.handle(), path)?;
        let found = match last.name.as_slice() {
            b"." | b".." => return Err(Error::IsDirectory),
            _ if last.must_be_dir => namespace::lookup(&last.dir, &last.name)?,
            name => match self.create_or_find_in(&last.dir, name, &new)? {
                Made::New(handle) => return Ok((handle, true)),
                Made::Found(_) if options.create_new => return Err(Error::Exists),
                Made::Found(handle) => handle,
            },
        };
        if found.core().kind != FileKind::Symlink || !options.follow {
            return if last.must_be_dir { Err(Error::IsDirectory) } else { Ok((found, false)) };
        }
        // The file is to be where the link points, if anywhere.
        let (last, found) = namespace::to_last_followed(self.handle(), path)?;
        match found {
            Some(found) => Ok((found, false)),
            None if last.must_be_dir => Err(Error::IsDirectory),
            None => match self.create_or_find_in(&last.dir, &last.name, &new)? {
                Made::New(handle) => Ok((handle, true)),
                Made::Found(handle) => Ok((handle, false)),
            },
        }
    }

    fn file(&self, handle: Handle, options: &OpenOptions) -> Result<File> {
        let metadata = io::metadata(&handle);
        match metadata.kind {
            FileKind::Directory => return Err(Error::IsDirectory),
            FileKind::Symlink => return Err(Error::SymlinkLoop),
            FileKind::Regular => {}
        }
        if options.sequential && metadata.capacity.is_none() {
            return Err(Error::InvalidArgument("the file that is there is not sequential"));
        }
        if options.writes() {
            handle.fs().journal().writable()?;
        }
        let node = Node { handle };
        let flags = if options.sync { WriteFlags::DSYNC } else { WriteFlags::NONE };
        Ok(File { node, read: options.read, write: options.writes(), append: options.append, flags })
    }

    /// Makes a file and opens it for reading and writing; cuts one that is there.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn create(&self, path: impl AsRef<Path>) -> Result<File> {
        self.open(path, &OpenOptions::new().read(true).write(true).create(true).truncate(true))
    }

    /// Makes a file without a name, as `O_TMPFILE`: it is gone with its last handle, or after a crash, unless
    /// [`Self::link_file`] gives it a name.
    ///
    /// # Errors
    /// No space, damage.
    pub fn open_unnamed(&self, options: &OpenOptions) -> Result<File> {
        let new = self.new_file(options)?;
        let make = || namespace::create_unnamed(self.handle(), &new);
        self.file(self.handle().fs().with_room(make)?, options)
    }

    /// Gives an open file a (further) name.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::CrossPool`], unusable names, no space, damage.
    pub fn link_file(&self, file: &File, path: impl AsRef<Path>) -> Result<()> {
        self.same_store(&file.node.handle)?;
        let last = self.last(path.as_ref())?;
        self.handle().fs().with_room(|| namespace::link(&file.node.handle, &last.dir, &last.name))
    }

    fn same_store(&self, other: &Handle) -> Result<()> {
        let same = std::ptr::eq(&**self.handle().fs(), &**other.fs());
        if same { Ok(()) } else { Err(Error::CrossPool) }
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`], damage.
    pub fn open_dir(&self, path: impl AsRef<Path>) -> Result<Self> {
        let handle = namespace::resolve(self.handle(), bytes(path.as_ref()), Follow::Yes)?;
        if !io::metadata(&handle).is_dir() {
            return Err(Error::NotDirectory);
        }
        Ok(Self::new(handle))
    }

    /// A handle to whatever is at the path.
    ///
    /// # Errors
    /// [`Error::NotFound`], damage.
    pub fn open_node(&self, path: impl AsRef<Path>, follow: Follow) -> Result<Node> {
        Ok(Node { handle: namespace::resolve(self.handle(), bytes(path.as_ref()), follow)? })
    }

    fn make(&self, path: &Path, new: &New<'_>) -> Result<Handle> {
        let last = self.last(path)?;
        match namespace::lookup(&last.dir, &last.name) {
            Err(Error::NotFound) => {}
            Ok(_) => return Err(Error::Exists),
            Err(error) => return Err(error),
        }
        if last.must_be_dir && new.kind != FileKind::Directory {
            return Err(Error::NotFound);
        }
        self.create_in(&last, new)
    }

    fn create_or_find_in(&self, dir: &Handle, name: &[u8], new: &New<'_>) -> Result<Made> {
        dir.fs().with_room(|| namespace::create_or_find(dir, name, new))
    }

    fn create_in(&self, last: &Last, new: &New<'_>) -> Result<Handle> {
        self.handle().fs().with_room(|| namespace::create(&last.dir, &last.name, new))
    }

    /// Makes a directory with permission bits `mode`.
    ///
    /// # Errors
    /// [`Error::Exists`], unusable names, no space, damage.
    pub fn create_dir(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        self.make(path.as_ref(), &self.new_inode(FileKind::Directory, mode, None)).map(|_| ())
    }

    /// Makes a directory that is removed with all below it when the pool is opened next, unless it is renamed before.
    pub(super) fn create_snapshot_dir(&self, path: &Path) -> Result<Self> {
        let (last, new) = (self.last(path)?, self.new_inode(FileKind::Directory, 0o700, None));
        let made =
            self.handle().fs().with_room(|| namespace::create_snapshot(&last.dir, &last.name, &new))?;
        Ok(Self::new(made))
    }

    /// Makes a directory and those on the way to it, where they are missing.
    ///
    /// # Errors
    /// [`Error::NotDirectory`] where something else is in the way, as [`Self::create_dir`].
    pub fn create_dir_all(&self, path: impl AsRef<Path>, mode: u32) -> Result<()> {
        let mut so_far = PathBuf::new();
        for component in path.as_ref().components() {
            so_far.push(component);
            match self.create_dir(&so_far, mode) {
                Err(Error::Exists) => {}
                made => made?,
            }
        }
        if self.metadata_of(path.as_ref(), Follow::Yes)?.is_dir() { Ok(()) } else { Err(Error::NotDirectory) }
    }

    /// Makes a symbolic link that points to `target`, 1 to 4095 bytes.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::TargetTooLong`], unusable names, no space, damage.
    pub fn symlink(&self, target: impl AsRef<Path>, link: impl AsRef<Path>) -> Result<()> {
        // A copy: the caller's may lie in a mapping, whose faults must find no directory locked.
        let target = bytes(target.as_ref()).to_vec();
        if target.is_empty() || target.contains(&0) {
            return Err(Error::NotFound);
        }
        let new = New { target: &target, ..self.new_inode(FileKind::Symlink, 0o777, None) };
        self.make(link.as_ref(), &new).map(|_| ())
    }

    /// Where a symbolic link points.
    ///
    /// # Errors
    /// [`Error::NotSymlink`], [`Error::NotFound`], damage.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let handle = namespace::resolve(self.handle(), bytes(path.as_ref()), Follow::No)?;
        Ok(PathBuf::from(OsString::from_vec(namespace::target(&handle)?)))
    }

    /// Gives a file one more name; a symbolic link at the end of `original` is linked itself.
    ///
    /// # Errors
    /// [`Error::LinkToDirectory`], [`Error::Exists`], unusable names, no space, damage.
    pub fn hard_link(&self, original: impl AsRef<Path>, link: impl AsRef<Path>) -> Result<()> {
        let file = namespace::resolve(self.handle(), bytes(original.as_ref()), Follow::No)?;
        let last = self.last(link.as_ref())?;
        self.handle().fs().with_room(|| namespace::link(&file, &last.dir, &last.name))
    }

    /// Removes the name of anything but a directory. The inode lives on as long as it has names or handles.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsDirectory`], damage.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> Result<()> {
        let last = self.last(path.as_ref())?;
        if last.must_be_dir {
            return Err(Error::NotDirectory);
        }
        namespace::remove(&last.dir, &last.name, What::File)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotDirectory`], [`Error::NotEmpty`], damage.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> Result<()> {
        let last = self.last(path.as_ref())?;
        namespace::remove(&last.dir, &last.name, What::Directory)
    }

    /// Removes a directory and everything below it; each removal is a durable step of its own.
    ///
    /// # Errors
    /// As [`Self::remove_dir`] and [`Self::remove_file`].
    pub fn remove_dir_all(&self, path: impl AsRef<Path>) -> Result<()> {
        let last = self.last(path.as_ref())?;
        let found = namespace::lookup(&last.dir, &last.name)?;
        if !io::metadata(&found).is_dir() {
            return Err(Error::NotDirectory);
        }
        // Directories that are being emptied, outermost first; no recursion, since depth is the user's to choose.
        let mut on_the_way = HashSet::from([found.ino()]);
        let mut stack = vec![(last.dir, last.name, Self::new(found))];
        while let Some((parent, name, dir)) = stack.pop() {
            let mut below = None;
            for item in dir.read_dir() {
                let item = item?;
                if item.kind == FileKind::Directory {
                    below = Some(item.name.into_vec());
                    break;
                }
                namespace::remove(dir.handle(), item.name.as_bytes(), What::File)?;
            }
            match below {
                None => {
                    namespace::remove(&parent, &name, What::Directory)?;
                    on_the_way.remove(&dir.handle().ino());
                }
                Some(below) => {
                    let inner = Self::new(namespace::lookup(dir.handle(), &below)?);
                    if !on_the_way.insert(inner.handle().ino()) {
                        // Only damage makes a circle of directories, and it would be walked for ever.
                        return Err(namespace::loops(inner.handle().ino()));
                    }
                    let outer = dir.handle().clone();
                    stack.push((parent, name, dir));
                    stack.push((outer, below, inner));
                }
            }
        }
        Ok(())
    }

    /// Renames, replacing what is at `to` (a file, or an empty directory).
    ///
    /// # Errors
    /// As [`Self::rename_to`].
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
        self.rename_to(from, self, to, RenameMode::Replace)
    }

    /// Renames `from`, relative to this directory, to `to`, relative to `to_dir`, in one durable step.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Exists`], [`Error::NotEmpty`], [`Error::IntoItself`], [`Error::CrossPool`], kinds
    /// that do not fit, unusable names, no space, damage.
    pub fn rename_to(
        &self,
        from: impl AsRef<Path>,
        to_dir: &Self,
        to: impl AsRef<Path>,
        mode: RenameMode,
    ) -> Result<()> {
        self.same_store(to_dir.handle())?;
        let (from, to) = (self.last(from.as_ref())?, to_dir.last(to.as_ref())?);
        if from.must_be_dir || to.must_be_dir {
            let moved = namespace::lookup(&from.dir, &from.name)?;
            if !io::metadata(&moved).is_dir() {
                return Err(Error::NotDirectory);
            }
        }
        let rename = || namespace::rename(&from.dir, &from.name, &to.dir, &to.name, mode);
        self.handle().fs().with_room(rename)
    }

    fn metadata_of(&self, path: &Path, follow: Follow) -> Result<Metadata> {
        Ok(io::metadata(&namespace::resolve(self.handle(), bytes(path), follow)?))
    }

    /// What is at the path, symbolic links followed. (Of this directory itself: [`Node::metadata`].)
    ///
    /// # Errors
    /// [`Error::NotFound`], damage.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        self.metadata_of(path.as_ref(), Follow::Yes)
    }

    /// What is at the path; of a symbolic link, the link.
    ///
    /// # Errors
    /// [`Error::NotFound`], damage.
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Metadata> {
        self.metadata_of(path.as_ref(), Follow::No)
    }

    /// Whether there is something at the path.
    ///
    /// # Errors
    /// Anything but its absence.
    pub fn exists(&self, path: impl AsRef<Path>) -> Result<bool> {
        match self.metadata_of(path.as_ref(), Follow::Yes) {
            Ok(_) => Ok(true),
            Err(Error::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sets attributes of what is at the path, in one durable step.
    ///
    /// # Errors
    /// [`Error::NotFound`], damage.
    pub fn set_attributes(
        &self,
        path: impl AsRef<Path>,
        attributes: &SetAttributes,
        follow: Follow,
    ) -> Result<()> {
        self.open_node(path, follow)?.set_attributes(attributes)
    }

    /// The whole content of a file.
    ///
    /// # Errors
    /// As [`Self::open`] and [`File::read_at`].
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let file = self.open(path, &OpenOptions::new().read(true))?;
        let len =
            usize::try_from(file.len()).map_err(|_| Error::InvalidArgument("the file exceeds memory"))?;
        let mut content = Vec::new();
        content.try_reserve_exact(len).map_err(|_| Error::InvalidArgument("the file exceeds memory"))?;
        content.resize(len, 0);
        let found = file.read_at(&mut content, 0)?;
        content.truncate(found);
        Ok(content)
    }

    /// Makes `content` the whole content of a file, which is made where there is none.
    ///
    /// # Errors
    /// As [`Self::open`] and [`File::write_at`].
    pub fn write(&self, path: impl AsRef<Path>, content: &[u8]) -> Result<()> {
        self.create(path)?.write_all_at(content, 0)
    }

    /// The entries, without `.` and `..`, in the order of their cursors.
    #[must_use]
    pub fn read_dir(&self) -> ReadDir {
        self.read_dir_from(0)
    }

    /// The entries from a cursor on: 0 or an entry's [`DirEntry::next`]. Entries made or removed meanwhile move no
    /// other's cursor.
    #[must_use]
    pub fn read_dir_from(&self, cursor: u64) -> ReadDir {
        ReadDir { dir: self.clone(), next: Some(cursor), ready: VecDeque::new() }
    }
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: OsString,
    /// The inode's number.
    pub ino: Ino,
    /// What the inode is.
    pub kind: FileKind,
    /// The cursor of what follows.
    pub next: u64,
}

/// The entries of a directory, read a batch at a time.
#[derive(Debug)]
pub struct ReadDir {
    dir: Dir,
    /// Where the next batch begins; `None` after the last.
    next: Option<u64>,
    ready: VecDeque<DirEntry>,
}

const BATCH: usize = 256;

impl ReadDir {
    fn fill(&mut self, from: u64) -> Result<()> {
        let handle = self.dir.handle();
        let state = handle.core().state.read();
        let ready = &mut self.ready;
        tree::scan(&*handle.fs().space, &state.root, handle.ino(), from, |key, payload| {
            let (entry, name) = entry::decode(handle.ino(), key, payload)?;
            let name = OsStr::from_bytes(name).to_owned();
            ready.push_back(DirEntry { name, ino: entry.ino, kind: entry.kind, next: key + 1 });
            Ok(if ready.len() < BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        self.next = if ready.len() < BATCH { None } else { ready.back().map(|entry| entry.next) };
        Ok(())
    }
}

impl Iterator for ReadDir {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            let from = self.next.take()?;
            if let Err(error) = self.fill(from) {
                return Some(Err(error));
            }
        }
        self.ready.pop_front().map(Ok)
    }
}
