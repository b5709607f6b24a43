//! How does a program read and write files without waiting?

use super::{File, Store};
use crate::error::Result;
use crate::io::queue::{Completed, Limits, Queue, Queued, Want};
use crate::units::BLOCK_BYTES;

/// Bytes of the parts of large writes, unless said: a thread copies as many in some 50 us.
const PART_BYTES: u64 = 512 << 10;
/// Requests that one thread fences together at most.
const BATCH: usize = 16;
/// Bytes that one thread fences together: beyond, the fence is nothing beside the copy, and others can help.
const BATCH_BYTES: u64 = 64 << 10;

/// How an [`IoQueue`] works.
#[derive(Clone, Copy, Debug)]
pub struct IoQueueOptions(Limits);

impl Default for IoQueueOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl IoQueueOptions {
    /// Two threads, at most 64 requests in flight.
    #[must_use]
    pub fn new() -> Self {
        let (part, batch, batch_bytes) = (PART_BYTES, BATCH, BATCH_BYTES);
        Self(Limits { workers: 2, depth: 64, part, batch, batch_bytes })
    }

    /// Threads that copy. One without work, and a caller that waits, looks for some for up to 50 us before it sleeps, less
    /// where that has not paid of late; a caller that waits copies too. With 0 the callers do the work themselves: in [`IoQueue::step`], and wherever they wait. Other
    /// calls on bytes that such a queue has in flight wait until somebody does.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.0.workers = workers;
        self
    }

    /// Requests in flight at most, 1 or more: who submits more waits until some have ended.
    #[must_use]
    pub fn depth(mut self, depth: usize) -> Self {
        self.0.depth = depth.max(1);
        self
    }

    /// Bytes of the parts that a large write is cut into for several threads: rounded up to blocks of 4096, at least one.
    #[must_use]
    pub fn part_bytes(mut self, bytes: u64) -> Self {
        self.0.part = bytes.max(1).next_multiple_of(BLOCK_BYTES);
        self
    }

    /// Requests of at most 64 KiB in all that a thread makes durable with one fence and one record: 1 or more.
    #[must_use]
    pub fn batch(mut self, requests: usize) -> Self {
        self.0.batch = requests.max(1);
        self
    }
}

/// A request of an [`IoQueue`]. It owns its buffers, which come back with its end.
#[derive(Debug)]
#[must_use = "a request does nothing before it is submitted"]
pub struct IoRequest {
    want: Want,
    buffers: Vec<Vec<u8>>,
}

impl IoRequest {
    /// Fills the buffers, in order and as long as they are, from byte `offset` on.
    pub fn read(offset: u64, buffers: Vec<Vec<u8>>) -> Self {
        Self { want: Want::Read(offset), buffers }
    }

    /// Writes the buffers, in order, from byte `offset` on (at the end, where the file was opened to append).
    pub fn write(offset: u64, buffers: Vec<Vec<u8>>) -> Self {
        Self { want: Want::Write(offset), buffers }
    }

    /// Writes all of the buffers, in order, at the end of the file.
    pub fn append(buffers: Vec<Vec<u8>>) -> Self {
        Self { want: Want::Append, buffers }
    }

    /// The buffers: after [`IoQueue::submit_and_wait`], what was read.
    #[must_use]
    pub fn buffers(&self) -> &[Vec<u8>] {
        &self.buffers
    }

    /// The buffers, to be used again.
    #[must_use]
    pub fn into_buffers(self) -> Vec<Vec<u8>> {
        self.buffers
    }
}

/// Asynchronous reads and writes of the files of one store, done by threads of the queue. What a write promises when it
/// ends is what [`File::write_at`] promises when it returns, but that it may be shorter where the medium fails in the middle
/// of it: as many bytes as it tells are the file's then. Requests for overlapping bytes (writes: blocks of 4 KiB)
/// take effect in the order of their submission; no other order is kept. Writes past the end of one file follow each
/// other, each copied by several threads if it is large. Dropped, the queue waits for what was submitted.
///
/// ```
/// use daxstore::{IoQueue, IoQueueOptions, IoRequest, OpenOptions};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let options = daxstore::StoreOptions::new().assume_persistent(true);
/// # let store = daxstore::Store::create(dir.path().join("pool"), 16 << 20, &options)?;
/// let queue = IoQueue::new(&store, IoQueueOptions::new());
/// let file = store.open("/f", &OpenOptions::new().read(true).write(true).create(true))?;
/// let queued = queue.submit(&file, IoRequest::write(0, vec![b"one ".to_vec(), b"two".to_vec()]));
/// let ended = queued.wait();
/// assert_eq!(ended.result?, 7);
/// let mut read = IoRequest::read(4, vec![ended.buffers[1].clone()]);
/// assert_eq!(queue.submit_and_wait(&file, &mut read)?, 3);
/// assert_eq!(read.buffers(), [b"two".to_vec()]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct IoQueue {
    queue: Queue,
}

impl IoQueue {
    /// A queue for the files of `store`.
    #[must_use]
    pub fn new(store: &Store, options: IoQueueOptions) -> Self {
        Self { queue: Queue::new(store.inner.fs.clone(), options.0) }
    }

    /// Submits a request, and gives a ticket for its end: everything that can go wrong is said there. Waits while the queue is
    /// full, and while bytes that the request needs are being read or written: never for a later request. When it returns, the
    /// blocks that a write needs are its own: it does not fail for want of space any more.
    pub fn submit(&self, file: &File, request: IoRequest) -> Queued {
        let IoRequest { want, buffers } = request;
        let (allowed, want) = match want {
            Want::Read(_) => (file.reads(), want),
            Want::Write(_) if file.append => (file.writes(), Want::Append),
            Want::Write(_) | Want::Append => (file.writes(), want),
        };
        match allowed {
            Ok(()) => self.queue.submit(&file.node.handle, want, buffers),
            Err(error) => self.queue.refuse(&file.node.handle, error, buffers),
        }
    }

    /// Submits a request and waits for its end: how many bytes were read or written. The buffers are in `request` again.
    ///
    /// # Errors
    /// Those of [`File::read_vectored_at`] and [`File::write_vectored_at`].
    pub fn submit_and_wait(&self, file: &File, request: &mut IoRequest) -> Result<usize> {
        let (want, buffers) = (request.want, std::mem::take(&mut request.buffers));
        let Completed { result, buffers, .. } = self.submit(file, IoRequest { want, buffers }).wait();
        request.buffers = buffers;
        result
    }

    /// Does the next piece of work, in a queue without threads: whether there was any.
    pub fn step(&self) -> bool {
        self.queue.step()
    }

    /// Waits until everything that was submitted before has ended.
    pub fn drain(&self) {
        self.queue.drain();
    }

    /// Waits until everything that was submitted before for `file` has ended.
    pub fn drain_file(&self, file: &File) {
        self.queue.drain_file(file.node.handle.ino());
    }

    /// How many requests have not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }
}
