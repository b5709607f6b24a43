//! How does a path become a region?
//!
//! What lies at the path is detected and not guessed: a devdax device by what sysfs says of it, a file on a DAX file
//! system by `MAP_SYNC` being granted, and anything else is a plain file. A plain file is made durable by pages, unless
//! the caller says that its memory is persistent: saying so of a disk would be a lie.
//!
//! Invariants:
//! 1. A region holds its file's lock from before the first look at its contents until it is dropped.
//! 2. A region opened read-only is mapped without leave to store, and its calls refuse stores before they touch memory.
//! 3. The size of a region only grows, and only after its file did.

use super::counters::CountersByThread;
use super::info::{Durability, Medium, RegionInfo};
use super::lines::Lines;
use super::mapping::{Extent, LineMapping, PageMapping, Sharing};
use super::{Backend, Region, host, pages};
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::units::{BLOCK_BYTES, MAX_POOL_BYTES, MIN_POOL_BYTES, PoolOff};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// How to open a region. The default: for reading and writing, nothing assumed, nothing destroyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionOptions {
    /// Takes no stores, and shares the pool with others that only read.
    pub read_only: bool,
    /// A plain file's memory is persistent: flush cache lines instead of writing pages. For tmpfs and tests.
    pub assume_persistent: bool,
    /// Lets [`Region::create_file`] destroy a file that exists.
    pub force: bool,
    /// Uses PMDK's libpmem, where this crate was built with the feature `libpmem`.
    pub libpmem: bool,
}

/// The file or device that a region maps, locked.
#[derive(Debug)]
pub(super) struct Host {
    file: Arc<File>,
    /// Held while the file grows. A device has none: it can not.
    growing: Option<Mutex<()>>,
}

/// A backend and what was found out on the way to it.
struct Found {
    backend: Backend,
    medium: Medium,
    durability: Durability,
    eadr: bool,
    len: u64,
    mapped: u64,
}

impl Region {
    /// Makes a file of `size` bytes at `path`, sparse and with mode 0600, and opens it; durable on return. A devdax
    /// device is opened as it is, at its full size, with whatever it holds (see [`RegionInfo::zeroed`]).
    ///
    /// # Errors
    /// [`Error::PoolSize`] outside 8 MiB to 16 TiB or larger than the device; [`Error::PoolExists`] for a file that
    /// exists, without `force`; [`Error::Held`], [`Error::ReadOnly`], [`Error::Unsupported`], [`Error::Path`].
    /// A file that was made is removed again.
    pub fn create_file(path: impl AsRef<Path>, size: u64, options: &RegionOptions) -> Result<Self> {
        let path = path.as_ref();
        if options.read_only {
            return Err(Error::ReadOnly);
        }
        if !(MIN_POOL_BYTES..=MAX_POOL_BYTES).contains(&size) {
            return Err(Error::PoolSize(size));
        }
        if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
            let region = Self::open_file(path, options)?;
            return if size <= region.len() { Ok(region) } else { Err(Error::PoolSize(size)) };
        }
        let (file, made) = make(path, options.force)?;
        let created = fill(&file, path, size).and_then(|()| Self::attach(file, path, options, true));
        if created.is_err() && made {
            // What failed first is what the caller must hear of.
            let _ = fs::remove_file(path);
        }
        created
    }

    /// Opens the file or devdax device at `path`.
    ///
    /// # Errors
    /// [`Error::Held`] with the holder while somebody else has it open, except that readers share;
    /// [`Error::NotAPool`] for an empty file; [`Error::Unsupported`], [`Error::Path`].
    pub fn open_file(path: impl AsRef<Path>, options: &RegionOptions) -> Result<Self> {
        let path = path.as_ref();
        // Without O_NONBLOCK the open of a named pipe would wait for its other end.
        let file = OpenOptions::new()
            .read(true)
            .write(!options.read_only)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(|source| at_path("opening", path, source))?;
        host::lock(&file, options.read_only)?;
        Self::attach(file, path, options, false)
    }

    /// Maps a locked file.
    fn attach(file: File, path: &Path, options: &RegionOptions, zeroed: bool) -> Result<Self> {
        let file = Arc::new(file);
        let metadata = file.metadata().map_err(|source| at_path("examining", path, source))?;
        let found = if metadata.is_file() {
            find_file(&file, &metadata, path, options)?
        } else {
            find_device(&file, &metadata, path, options)?
        };
        let info = RegionInfo {
            backend: found.backend.name(),
            medium: found.medium,
            durability: found.durability,
            eadr: found.eadr,
            read_only: options.read_only,
            zeroed,
            mapped: found.mapped,
            path: Some(path.to_owned()),
        };
        let growing = metadata.is_file().then(|| Mutex::new(()));
        Ok(Self {
            backend: found.backend,
            size: AtomicU64::new(found.len),
            counters: CountersByThread::default(),
            info,
            host: Some(Host { file, growing }),
        })
    }

    /// Makes the region, and the file below it, `new_len` bytes long; the new bytes are zeros, and durably there on
    /// return. Does nothing where it has that length already.
    ///
    /// # Errors
    /// [`Error::CanNotShrink`], [`Error::ReadOnly`]; [`Error::PoolSize`] for more than 16 TiB or part of a block;
    /// [`Error::Unsupported`] for a device, for simulated memory, and where the addresses behind the mapping were not to
    /// be had; [`Error::Io`]. Nothing was changed, except perhaps the file's length.
    pub fn grow(&self, new_len: u64) -> Result<()> {
        let unsupported = |why| Err(Error::Unsupported { backend: self.info.backend, why });
        let Some(Host { file, growing: Some(growing) }) = &self.host else {
            return unsupported("only a pool in a file can grow");
        };
        if self.info.read_only {
            return Err(Error::ReadOnly);
        }
        let _growing = growing.lock();
        match self.len() {
            current if new_len < current => Err(Error::CanNotShrink { current, asked: new_len }),
            current if new_len == current => Ok(()),
            _ if new_len > MAX_POOL_BYTES || !new_len.is_multiple_of(BLOCK_BYTES) => {
                Err(Error::PoolSize(new_len))
            }
            _ if new_len > self.info.mapped => unsupported(
                "the address space left no room to grow; raise the limit (ulimit -v) and open again",
            ),
            _ => {
                let grown = file.set_len(new_len).and_then(|()| file.sync_all());
                grown.map_err(|source| Error::io("growing the pool's file", source))?;
                self.size.store(new_len, Ordering::Release);
                Ok(())
            }
        }
    }

    /// Has the host give the range its blocks, so that a host without room says so here and not by SIGBUS at a store.
    /// Does nothing for a device and for simulated memory, nor where the host's file system can not.
    ///
    /// # Errors
    /// [`Error::Io`] with `ENOSPC` where the host is full; [`Error::OutOfPool`], [`Error::ReadOnly`].
    pub fn provision(&self, at: PoolOff, len: u64) -> Result<()> {
        self.check_store(at, len)?;
        match &self.host {
            Some(Host { file, growing: Some(_) }) if len > 0 => host::allocate(file, at.0, len)
                .map_err(|source| Error::io("reserving room for the pool on its file system", source)),
            _ => Ok(()),
        }
    }
}

impl Backend {
    fn name(&self) -> &'static str {
        match self {
            Self::Lines(_, lines) => lines.name(),
            #[cfg(feature = "libpmem")]
            Self::Libpmem(_) => super::libpmem::NAME,
            Self::Pages(..) => "pages (msync)",
            #[cfg(feature = "sim")]
            Self::Sim(_) => "sim",
        }
    }
}

fn at_path(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Path { what, path: path.to_owned(), source }
}

/// Makes and locks a file, or with `force` takes one that exists. Tells whether it was made.
fn make(path: &Path, force: bool) -> Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let (file, made) = match options.clone().create_new(true).open(path) {
        Ok(file) => (file, true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && force => {
            (options.open(path).map_err(|source| at_path("opening", path, source))?, false)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(Error::PoolExists),
        Err(source) => return Err(at_path("creating", path, source)),
    };
    host::lock(&file, false)?;
    Ok((file, made))
}

/// Makes a locked file `size` bytes of zeros that only its owner may touch, durably.
fn fill(file: &File, path: &Path, size: u64) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    file.set_permissions(Permissions::from_mode(0o600))
        .and_then(|()| file.set_len(0))
        .and_then(|()| file.set_len(size))
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(|source| at_path("making the pool's file", path, source))
}

fn find_device(file: &File, metadata: &Metadata, path: &Path, options: &RegionOptions) -> Result<Found> {
    let sysfs = Path::new(host::SYSFS);
    let dax = match metadata.file_type().is_char_device() {
        true => host::devdax(sysfs, metadata.rdev())?,
        false => None,
    };
    let Some(dax) = dax else {
        let why = "a pool lies in a regular file or on a devdax device; make a file system with DAX on a block device";
        return Err(Error::Unsupported { backend: "pool", why });
    };
    if dax.size > MAX_POOL_BYTES {
        return Err(Error::PoolSize(dax.size));
    }
    let extent = Extent { len: dax.size, room: false, writable: !options.read_only };
    let mapping = LineMapping::new(file, extent, dax.align, Sharing::Plain)
        .map_err(|source| at_path("mapping", path, source))?;
    let eadr = host::caches_persist(sysfs, metadata);
    let medium = Medium::Devdax { align: dax.align };
    let (len, mapped) = (dax.size, mapping.mapped());
    let backend = by_lines(mapping, eadr, options)?;
    Ok(Found { backend, medium, durability: Durability::PowerLoss, eadr, len, mapped })
}

fn find_file(file: &Arc<File>, metadata: &Metadata, path: &Path, options: &RegionOptions) -> Result<Found> {
    let len = metadata.len() / BLOCK_BYTES * BLOCK_BYTES;
    match len {
        0 => return Err(Error::NotAPool),
        1..=MAX_POOL_BYTES => {}
        _ => return Err(Error::PoolSize(len)),
    }
    let extent = Extent { len, room: true, writable: !options.read_only };
    let failed = |source| at_path("mapping", path, source);
    if let Some(mapping) = map_sync(file, extent, options).map_err(failed)? {
        let eadr = host::caches_persist(Path::new(host::SYSFS), metadata);
        let mapped = mapping.mapped();
        let backend = by_lines(mapping, eadr, options)?;
        return Ok(Found {
            backend,
            medium: Medium::Fsdax,
            durability: Durability::PowerLoss,
            eadr,
            len,
            mapped,
        });
    }
    if options.assume_persistent {
        let mapping = LineMapping::new(file, extent, BLOCK_BYTES, Sharing::Plain).map_err(failed)?;
        let (medium, durability) = (Medium::AssumedPersistent, Durability::Assumed);
        let mapped = mapping.mapped();
        let backend = by_lines(mapping, false, options)?;
        return Ok(Found { backend, medium, durability, eadr: false, len, mapped });
    }
    if options.libpmem {
        let why = "the pool is a plain file, which libpmem does not make durable; open it without libpmem";
        return Err(Error::Unsupported { backend: "libpmem", why });
    }
    let mapping = PageMapping::new(Arc::clone(file), extent).map_err(failed)?;
    let mapped = mapping.mapped();
    let volatile = host::is_volatile(file).map_err(failed)?;
    let durability = if volatile { Durability::ProcessOnly } else { Durability::PowerLoss };
    let backend = Backend::Pages(mapping, pages::Collected::default());
    Ok(Found { backend, medium: Medium::PlainFile, durability, eadr: false, len, mapped })
}

/// A mapping of persistent memory, if that is what the file lies in and cache lines can be flushed here.
fn map_sync(file: &File, extent: Extent, options: &RegionOptions) -> io::Result<Option<LineMapping>> {
    if !cfg!(target_arch = "x86_64") && !options.libpmem {
        return Ok(None);
    }
    match LineMapping::new(file, extent, BLOCK_BYTES, Sharing::Sync) {
        Ok(mapping) => Ok(Some(mapping)),
        // Kernels before 4.15 know no MAP_SHARED_VALIDATE.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => Ok(None),
        Err(e) => Err(e),
    }
}

fn by_lines(mapping: LineMapping, eadr: bool, options: &RegionOptions) -> Result<Backend> {
    if options.libpmem {
        return by_libpmem(mapping);
    }
    Ok(Backend::Lines(mapping, Lines::new(eadr)?))
}

#[cfg(feature = "libpmem")]
#[allow(clippy::unnecessary_wraps, reason = "as the one without the feature")]
fn by_libpmem(mapping: LineMapping) -> Result<Backend> {
    Ok(Backend::Libpmem(mapping))
}

#[cfg(not(feature = "libpmem"))]
fn by_libpmem(_mapping: LineMapping) -> Result<Backend> {
    let why = "this program was built without the feature `libpmem`; open the pool without it";
    Err(Error::Unsupported { backend: "libpmem", why })
}
