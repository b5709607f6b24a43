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

use super::info::{Durability, Medium, RegionInfo};
use super::lines::Lines;
use super::mapping::{Extent, LineMapping, PageMapping, Sharing};
use super::{Backend, Region, bad, host, pages};
use crate::error::{Error, Result};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex};
use crate::units::{BLOCK_BYTES, MAX_POOL_BYTES, MIN_POOL_BYTES, PoolOff};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
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
    /// [`Error::PoolSize`] outside 8 MiB to 16 TiB; [`Error::InvalidArgument`] for more than the device has;
    /// [`Error::PoolExists`] for a file that exists, without `force`; [`Error::Held`],
    /// [`Error::ReadOnly`], [`Error::Unsupported`], [`Error::Path`]. A file that was made is removed again.
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
            let too_small = Error::InvalidArgument("the device is smaller than the pool asked for");
            return if size <= region.len() { Ok(region) } else { Err(too_small) };
        }
        if is_missing_device(path) {
            let missing = std::io::Error::from_raw_os_error(libc::ENXIO);
            return Err(at_path("making a pool on the device", path, missing));
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
        let bad = known_bad(&file, &metadata, found.medium)?;
        let growing = metadata.is_file().then(|| Mutex::new(()));
        let region = Self::new(found.backend, found.len, info, Some(Host { file, growing }));
        region.change_bad(|known| bad.into_iter().for_each(|range| known.add(range)));
        Ok(region)
    }

    /// Has the medium take the whole blocks of `len` bytes from `at` again, which are nobody's: whether it does. What
    /// they hold then is not known.
    ///
    /// The kernel mends memory below a DAX file system when it is written to by `write(2)`. It does not for a devdax
    /// device: there `ndctl clear-errors` does, and it is asked whether that has happened.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]; [`Error::Io`] where the system could not write.
    pub fn mend(&self, at: PoolOff, len: u64) -> Result<bool> {
        if self.info.read_only {
            return Err(Error::ReadOnly);
        }
        let bytes = at.0..at.0.saturating_add(len);
        let failed = |source| Error::io("writing over bad blocks", source);
        match (&self.host, self.info.medium) {
            (Some(Host { file, .. }), Medium::Fsdax) => zero_by_write(file, bytes.clone()).map_err(failed)?,
            (Some(Host { file, .. }), Medium::Devdax { .. }) => {
                let metadata = file.metadata().map_err(failed)?;
                let still = bad::of_devdax(Path::new(host::SYSFS), metadata.rdev())?;
                if still.iter().any(|range| range.start < bytes.end && bytes.start < range.end) {
                    return Ok(false);
                }
            }
            _ => {}
        }
        self.change_bad(|bad| bad.remove(bytes));
        Ok(true)
    }

    /// Makes the region, and the file below it, `new_len` bytes long; the new bytes are zeros, and durably there on
    /// return. Does nothing where it has that length already.
    ///
    /// # Errors
    /// [`Error::CanNotShrink`], [`Error::ReadOnly`]; [`Error::PoolSize`] for more than 16 TiB or part of a block;
    /// [`Error::DeviceEnds`]; [`Error::Unsupported`] where the addresses behind the mapping were not to be had;
    /// [`Error::Io`]. Nothing was changed, except perhaps the file's length.
    pub fn grow(&self, new_len: u64) -> Result<()> {
        #[cfg(feature = "sim")]
        if let Backend::Sim(sim) = &self.backend {
            return self.extend(new_len, || {
                sim.grow(new_len);
                Ok(())
            });
        }
        let Some(Host { file, growing: Some(growing) }) = &self.host else {
            return Err(beyond_device(self.info.backend, self.info.medium, self.len(), new_len));
        };
        let _growing = growing.lock();
        self.extend(new_len, || file.set_len(new_len).and_then(|()| file.sync_all()))
    }

    /// The file or device that is mapped, for those who map it too; simulated memory has none.
    #[must_use]
    pub fn file(&self) -> Option<&Arc<File>> {
        self.host.as_ref().map(|host| &host.file)
    }

    /// Has `grow` make what lies below longer, and then the region.
    fn extend(&self, new_len: u64, grow: impl FnOnce() -> io::Result<()>) -> Result<()> {
        let unsupported = |why| Err(Error::Unsupported { backend: self.info.backend, why });
        if self.info.read_only {
            return Err(Error::ReadOnly);
        }
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
                grow().map_err(|source| Error::io("growing the pool's file", source))?;
                // Simulated memory has no lock of its own for this: never back.
                self.size.fetch_max(new_len, Ordering::AcqRel);
                self.change_bad(|_| ());
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
        if self.info.read_only {
            return Err(Error::ReadOnly);
        }
        self.check_bounds(at, len)?;
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

/// What the kernel knows to be bad of a pool on this medium.
fn known_bad(file: &File, metadata: &Metadata, medium: Medium) -> Result<Vec<Range<u64>>> {
    let sysfs = Path::new(host::SYSFS);
    match medium {
        Medium::Devdax { .. } => bad::of_devdax(sysfs, metadata.rdev()),
        Medium::Fsdax => bad::of_file(sysfs, metadata.dev(), file),
        _ => Ok(Vec::new()),
    }
}

fn zero_by_write(file: &File, bytes: Range<u64>) -> io::Result<()> {
    let zeros = [0; BLOCK_BYTES as usize];
    for at in bytes.step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_data()
}

/// Whether `path` names a device that is not there: a file made in its place would lie in the memory of `/dev`.
fn is_missing_device(path: &Path) -> bool {
    let in_dev =
        path.parent().is_some_and(|dir| fs::canonicalize(dir).is_ok_and(|dir| dir == Path::new("/dev")));
    in_dev && !path.exists()
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

/// Why a region of `len` bytes that is no file of the host does not become `asked` bytes long.
fn beyond_device(backend: &'static str, medium: Medium, len: u64, asked: u64) -> Error {
    match medium {
        Medium::Devdax { .. } => Error::DeviceEnds { size: len, asked },
        _ => Error::Unsupported { backend, why: "only a pool in a file or on a device can grow" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Holder;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    const LEN: u64 = MIN_POOL_BYTES;
    const LINES: RegionOptions =
        RegionOptions { read_only: false, assume_persistent: true, force: false, libpmem: false };
    const PAGES: RegionOptions = RegionOptions { assume_persistent: false, ..LINES };
    const READ: RegionOptions = RegionOptions { read_only: true, ..PAGES };

    #[test]
    fn a_pool_that_is_to_outgrow_its_device_is_told_how_large_that_is() {
        let error = beyond_device("cache lines", Medium::Devdax { align: 2 << 20 }, 64 << 20, 1 << 30);
        assert_eq!(error.errno(), libc::EINVAL);
        let text = error.to_string();
        assert!(text.contains("the device has 67108864 bytes") && text.contains("1073741824"), "{text}");
        let other = beyond_device("cache lines", Medium::PlainFile, 64 << 20, 1 << 30);
        assert!(matches!(other, Error::Unsupported { .. }), "{other}");
    }

    fn shm() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    /// A region for every backend that this machine has, on memory and on disk.
    fn every_region(dirs: &[tempfile::TempDir]) -> Vec<Region> {
        let mut all = Vec::new();
        for (n, dir) in dirs.iter().enumerate() {
            let path = |name: &str| dir.path().join(format!("{name}{n}"));
            all.push(Region::create_file(path("pages"), LEN, &PAGES).unwrap());
            if cfg!(target_arch = "x86_64") {
                all.push(Region::create_file(path("lines"), LEN, &LINES).unwrap());
            }
            if cfg!(feature = "libpmem") {
                let options = RegionOptions { libpmem: true, ..LINES };
                all.push(Region::create_file(path("libpmem"), LEN, &options).unwrap());
            }
        }
        #[cfg(feature = "sim")]
        all.push(Region::sim(Arc::new(crate::pmem::sim::Sim::new(LEN).unwrap())));
        all
    }

    #[test]
    fn what_is_bad_is_not_touched_and_can_be_mended() {
        let dirs = [shm()];
        for region in every_region(&dirs) {
            let sound = |at: u64| region.read(PoolOff(at), &mut [0; 8]);
            let lost = |result: Result<()>| matches!(result, Err(Error::Corrupt(d)) if d.at == PoolOff(8192));
            assert!(!region.has_bad());
            region.store(PoolOff(8192), &[7; 8]).unwrap();
            region.mark_bad(PoolOff(9000), 1).unwrap();
            assert!(region.has_bad() && region.mark_bad(PoolOff(LEN), 1).is_err());
            assert_eq!(region.bad_ranges(), [(PoolOff(8192), 4096)]);
            assert_eq!(region.bad(PoolOff(0), LEN), Some((PoolOff(8192), 4096)));
            assert_eq!(region.bad(PoolOff(9000), 10), Some((PoolOff(9000), 10)));
            assert_eq!((region.bad(PoolOff(8000), 192), region.bad(PoolOff(12288), LEN)), (None, None));
            assert!(lost(sound(8192)) && lost(region.read(PoolOff(8190), &mut [0; 8])));
            assert!(lost(region.load(PoolOff(8192)).map(drop)) && lost(region.store(PoolOff(8192), &[1])));
            assert!(lost(region.copy_nt(PoolOff(8000), &[1; 300])) && lost(region.zero_nt(PoolOff(0), LEN)));
            assert!(lost(region.store_word(PoolOff(8192), 1)) && lost(region.flush(PoolOff(8192), 1)));
            assert!(sound(8184).is_ok() && sound(12288).is_ok() && sound(LEN - 8).is_ok());
            assert!(matches!(sound(LEN), Err(Error::OutOfPool { .. })));
            assert!(region.mend(PoolOff(8192), 4096).unwrap());
            assert!(!region.has_bad());
            assert_eq!(region.load(PoolOff(8192)).unwrap(), 0x0707_0707_0707_0707);
        }
    }

    fn random(state: &mut u64, below: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % below
    }

    /// Does one random thing to the region and to a model of it.
    fn step(region: &Region, model: &mut [u8], state: &mut u64) {
        let kind = random(state, 5);
        let len = if kind == 3 { 8 } else { random(state, 300) };
        let at = match random(state, model.len() as u64 - len) {
            at if kind == 3 => at / 8 * 8,
            at => at,
        };
        let word = *state | 1;
        let bytes = match kind {
            0 | 1 => vec![word as u8; len as usize],
            2 => vec![0; len as usize],
            3 => word.to_le_bytes().to_vec(),
            _ => {
                region.flush(PoolOff(at), len).unwrap();
                return region.fence().unwrap();
            }
        };
        match kind {
            0 => region.store(PoolOff(at), &bytes).unwrap(),
            1 => region.copy_nt(PoolOff(at), &bytes).unwrap(),
            2 => region.zero_nt(PoolOff(at), len).unwrap(),
            _ => region.store_word(PoolOff(at), word).unwrap(),
        }
        model[at as usize..(at + len) as usize].copy_from_slice(&bytes);
    }

    #[test]
    fn every_backend_stores_what_a_model_stores() {
        let dirs = [shm(), tempfile::tempdir().unwrap()];
        for region in every_region(&dirs) {
            let mut model = vec![0; 20_000];
            let mut state = 1;
            for _ in 0..400 {
                step(&region, &mut model, &mut state);
            }
            let mut found = vec![0; model.len()];
            region.read(PoolOff(0), &mut found).unwrap();
            assert!(found == model, "{region:?}");
            assert!(region.info().zeroed || region.info().medium == Medium::Simulated);
            if let Some(path) = &region.info().path {
                assert!(fs::read(path).unwrap()[..model.len()] == model, "{region:?} is not in its file");
            }
        }
    }

    #[test]
    fn every_backend_refuses_what_lies_outside() {
        let dirs = [shm(), tempfile::tempdir().unwrap()];
        let outside = |answer: Result<()>| assert!(matches!(answer, Err(Error::OutOfPool { .. })));
        for region in every_region(&dirs) {
            for at in [LEN - 7, LEN, u64::MAX - 3] {
                let at = PoolOff(at);
                outside(region.store(at, &[1; 8]));
                outside(region.copy_nt(at, &[1; 8]));
                outside(region.zero_nt(at, 8));
                outside(region.flush(at, 8));
                outside(region.read(at, &mut [0; 8]));
                outside(region.provision(at, 8));
            }
            for at in [PoolOff(4), PoolOff(LEN)] {
                outside(region.store_word(at, 1));
                outside(region.load(at).map(|_| ()));
            }
            region.store(PoolOff(LEN - 8), &[1; 8]).unwrap();
            region.flush(PoolOff(LEN), 0).unwrap();
        }
    }

    #[test]
    fn a_new_file_is_sparse_and_its_owners_only() {
        let dir = shm();
        let path = dir.path().join("pool");
        let region = Region::create_file(&path, 1 << 40, &LINES).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.blocks(), metadata.len()), (0o600, 0, 1 << 40));
        assert_eq!(region.len(), 1 << 40);
        assert_eq!(region.info().medium, Medium::AssumedPersistent);
        assert_eq!(region.info().durability, Durability::Assumed);
        assert_eq!(region.info().path.as_deref(), Some(&*path));
    }

    #[test]
    fn a_file_that_exists_is_destroyed_only_by_force() {
        let dir = shm();
        let path = dir.path().join("pool");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Region::create_file(&path, LEN, &PAGES), Err(Error::PoolExists)));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let force = RegionOptions { force: true, ..PAGES };
        let region = Region::create_file(&path, LEN, &force).unwrap();
        assert_eq!(region.load(PoolOff(0)).unwrap(), 0);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        region.store(PoolOff(0), b"held").unwrap();
        assert!(matches!(Region::create_file(&path, LEN, &force), Err(Error::Held(_))));
        assert_eq!(&fs::read(&path).unwrap()[..4], b"held");
    }

    #[test]
    fn a_file_that_can_not_be_used_is_not_left_behind() {
        let dir = shm();
        let path = dir.path().join("pool");
        let refused = Region::create_file(&path, LEN, &RegionOptions { libpmem: true, ..PAGES });
        assert!(matches!(refused, Err(Error::Unsupported { backend: "libpmem", .. })));
        assert!(!path.exists());
        for size in [LEN - 1, MAX_POOL_BYTES + 1] {
            assert!(matches!(Region::create_file(&path, size, &PAGES), Err(Error::PoolSize(_))));
        }
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_pool_is_refused() {
        let dir = shm();
        let empty = dir.path().join("empty");
        fs::write(&empty, "").unwrap();
        assert!(matches!(Region::open_file(&empty, &PAGES), Err(Error::NotAPool)));
        assert!(matches!(Region::open_file("/dev/null", &PAGES), Err(Error::Unsupported { .. })));
        assert!(matches!(Region::create_file("/dev/null", LEN, &PAGES), Err(Error::Unsupported { .. })));
        let missing = "/dev/daxstore-test.0";
        let error = Region::create_file(missing, LEN, &PAGES).unwrap_err();
        assert!(error.to_string().contains("No such device"), "{error}");
        assert!(!Path::new(missing).exists());
        assert!(matches!(Region::open_file(dir.path(), &READ), Err(Error::Unsupported { .. })));
        let missing = Region::open_file(dir.path().join("none"), &PAGES).unwrap_err();
        assert_eq!(missing.errno(), libc::ENOENT);
    }

    #[test]
    fn a_region_opened_to_read_takes_no_stores() {
        let dir = shm();
        let path = dir.path().join("pool");
        Region::create_file(&path, LEN, &LINES).unwrap().store(PoolOff(8), b"to read").unwrap();
        for options in [READ, RegionOptions { assume_persistent: cfg!(target_arch = "x86_64"), ..READ }] {
            let region = Region::open_file(&path, &options).unwrap();
            let refused = |answer: Result<()>| assert!(matches!(answer, Err(Error::ReadOnly)));
            refused(region.store(PoolOff(8), b"x"));
            refused(region.store_word(PoolOff(8), 1));
            refused(region.copy_nt(PoolOff(8), b"x"));
            refused(region.zero_nt(PoolOff(8), 1));
            refused(region.provision(PoolOff(8), 1));
            refused(region.grow(2 * LEN));
            region.flush(PoolOff(8), 8).unwrap();
            region.fence().unwrap();
            let mut found = [0; 7];
            region.read(PoolOff(8), &mut found).unwrap();
            assert_eq!(&found, b"to read");
        }
        let refused = Region::create_file(dir.path().join("new"), LEN, &READ);
        assert!(matches!(refused, Err(Error::ReadOnly)));
    }

    #[test]
    fn one_writer_or_many_readers() {
        let dir = shm();
        let path = dir.path().join("pool");
        let myself = Holder {
            pid: Some(std::process::id()),
            command: Some(fs::read_to_string("/proc/self/comm").unwrap().trim_end().to_owned()),
        };
        let held = |options: &RegionOptions| match Region::open_file(&path, options) {
            Err(Error::Held(holder)) => assert_eq!(holder, myself),
            other => panic!("{other:?}"),
        };
        let writer = Region::create_file(&path, LEN, &PAGES).unwrap();
        held(&PAGES);
        held(&READ);
        drop(writer);
        let readers = [READ, READ].map(|options| Region::open_file(&path, &options).unwrap());
        held(&PAGES);
        drop(readers);
        Region::open_file(&path, &PAGES).unwrap();
    }

    const HOLD: &str = "DAXSTORE_TEST_HOLD_POOL";

    /// Not a test of its own: the child of the next test runs it.
    #[test]
    fn hold_a_pool_for_the_parent() {
        if let Some(path) = std::env::var_os(HOLD) {
            let _region = Region::open_file(path, &PAGES).unwrap();
            eprintln!("\nholding");
            io::stdin().read_line(&mut String::new()).unwrap();
        }
    }

    #[test]
    fn another_process_that_holds_the_pool_is_named() {
        let dir = shm();
        let path = dir.path().join("pool");
        drop(Region::create_file(&path, LEN, &PAGES).unwrap());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "pmem::open::tests::hold_a_pool_for_the_parent"])
            .env(HOLD, &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "holding"), "the child did not open the pool");
        let Err(Error::Held(holder)) = Region::open_file(&path, &PAGES) else { panic!("opened twice") };
        assert_eq!(holder.pid, Some(child.id()));
        let command = fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap();
        assert_eq!(holder.command.as_deref(), Some(command.trim_end()));
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        Region::open_file(&path, &PAGES).unwrap();
    }

    #[test]
    fn a_pool_grows_where_it_lies() {
        let dir = shm();
        for (name, options) in [("pages", PAGES), ("lines", LINES)] {
            if options.assume_persistent && !cfg!(target_arch = "x86_64") {
                continue;
            }
            let path = dir.path().join(name);
            let mut region = Region::create_file(&path, LEN, &options).unwrap();
            assert_eq!(region.info().mapped, MAX_POOL_BYTES);
            let base = region.memory().pointer(PoolOff(0), 0);
            region.grow(LEN).unwrap();
            region.grow(4 * LEN).unwrap();
            assert_eq!(base, region.memory().pointer(PoolOff(0), 0));
            region.copy_nt(PoolOff(4 * LEN - 8), b"the end.").unwrap();
            region.fence().unwrap();
            assert!(matches!(region.copy_nt(PoolOff(4 * LEN), b"!"), Err(Error::OutOfPool { .. })));
            assert_eq!(fs::read(&path).unwrap()[4 * LEN as usize - 8..], *b"the end.");
            let shrunk = region.grow(LEN).unwrap_err();
            assert!(matches!(shrunk, Error::CanNotShrink { current, asked: LEN } if current == 4 * LEN));
            assert!(matches!(region.grow(4 * LEN + 1), Err(Error::PoolSize(_))));
            assert!(matches!(region.grow(MAX_POOL_BYTES + BLOCK_BYTES), Err(Error::PoolSize(_))));
            region.info.mapped = 4 * LEN;
            assert!(matches!(region.grow(5 * LEN), Err(Error::Unsupported { .. })));
            assert_eq!((region.len(), fs::metadata(&path).unwrap().len()), (4 * LEN, 4 * LEN));
        }
    }

    #[test]
    fn room_is_reserved_before_it_is_stored_to() {
        for dir in [shm(), tempfile::tempdir().unwrap()] {
            let path = dir.path().join("pool");
            let region = Region::create_file(&path, LEN, &PAGES).unwrap();
            region.provision(PoolOff(4096), 0).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().blocks(), 0);
            region.provision(PoolOff(BLOCK_BYTES), 1 << 20).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert!(metadata.blocks() * 512 >= 1 << 20, "{} sectors", metadata.blocks());
            assert_eq!(metadata.len(), LEN);
        }
    }

    #[test]
    fn a_host_without_room_says_so() {
        let dir = shm();
        let region = Region::create_file(dir.path().join("pool"), MAX_POOL_BYTES, &PAGES).unwrap();
        let full = region.provision(PoolOff(0), MAX_POOL_BYTES).unwrap_err();
        assert_eq!(full.errno(), libc::ENOSPC, "{full}");
    }

    /// Kilobytes of the mapped file that wait to be written, by the kernel's account.
    fn dirty(path: &Path) -> u64 {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let name = path.to_str().unwrap();
        let ours = smaps.lines().skip_while(|line| !line.ends_with(name));
        let dirty = ours.filter(|line| line.contains("_Dirty:")).take(2);
        dirty.map(|line| line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
    }

    #[test]
    fn a_fence_writes_the_collected_pages_of_a_file_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool");
        let region = Region::create_file(&path, LEN, &PAGES).unwrap();
        if region.info().durability == Durability::ProcessOnly {
            return;
        }
        for pages in [&[3_u64][..], &[1, 7, 30]] {
            for page in pages {
                region.copy_nt(PoolOff(page * BLOCK_BYTES + 4090), b"two pages").unwrap();
            }
            assert_eq!(dirty(&path), pages.len() as u64 * 8);
            region.fence().unwrap();
            assert_eq!(dirty(&path), 0);
        }
    }
}
