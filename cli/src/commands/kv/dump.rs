//! How do all records get out of a database, and back in?

use super::base::{Base, KvContext};
use super::format::{Reader, Record, Writer};
use crate::args::kv::{Dump, Load, Target};
use crate::failure::{Context, Failure, Result};
use crate::names::{JsonName, shown};
use crate::output::{Output, Verdict};
use crate::pool::Opener;
use crate::progress::Progress;
use crate::size::{counted, human};
use crate::time;
use daxstore_kv::{Batch, Tree};
use serde::Serialize;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

/// Records between two looks of the progress bar.
const STEP: u64 = 1000;
/// Bytes of keys and values after which a batch is stored though it has few records.
const BATCH_BYTES: usize = 16 << 20;

#[derive(Serialize)]
struct Done {
    file: JsonName,
    records: u64,
    bytes: u64,
    seconds: f64,
}

impl Done {
    fn print(self, verb: &str, output: &mut Output) -> Result<()> {
        output.line(format_args!(
            "{}: {} {verb}, {} in {}",
            self.file.name,
            counted(self.records, "record", "records"),
            human(self.bytes),
            time::duration((self.seconds * 1e9) as u64)
        ))?;
        output.document(&self)
    }
}

fn is_standard(file: &Path) -> bool {
    file == Path::new("-")
}

/// `kv load`.
pub fn load(opener: Opener, target: &Target, args: &Load, output: &mut Output) -> Result<Verdict> {
    let begun = Instant::now();
    let base = Base::write(opener, target, true)?;
    let what = || format!("read {}", shown(&args.file));
    let (input, progress): (Box<dyn BufRead>, _) = if is_standard(&args.file) {
        (Box::new(std::io::stdin().lock()), Progress::spinner("loading", output.json()))
    } else {
        let file = File::open(&args.file).context(what)?;
        let bytes = file.metadata().context(what)?.len();
        (Box::new(BufReader::with_capacity(1 << 20, file)), Progress::bytes("loading", bytes, output.json()))
    };
    let mut reader = Reader::new(input, args.format)?;
    let mut loader = Loader::new(&base, args)?;
    let mut seen = 0;
    while let Some(record) = reader.next()? {
        loader.take(record)?;
        if loader.records.is_multiple_of(STEP) {
            progress.advance(reader.bytes() - seen);
            seen = reader.bytes();
        }
    }
    loader.store()?;
    let (records, bytes) = (loader.records, reader.bytes());
    drop((loader, progress));
    let seconds = begun.elapsed().as_secs_f64();
    base.close()?;
    Done { file: JsonName::new(&args.file), records, bytes, seconds }.print("stored", output)?;
    Ok(Verdict::Good)
}

/// Stores records in batches, each of one tree.
struct Loader<'b> {
    base: &'b Base<'b>,
    default: Option<&'b str>,
    limit: usize,
    tree: Tree,
    name: Option<String>,
    batch: Batch,
    waiting: usize,
    waiting_bytes: usize,
    records: u64,
}

impl<'b> Loader<'b> {
    fn new(base: &'b Base<'b>, args: &'b Load) -> Result<Self> {
        let default = args.tree.as_deref();
        Ok(Self {
            base,
            default,
            limit: args.batch as usize,
            tree: base.tree(default)?,
            name: default.map(str::to_owned),
            batch: Batch::new(),
            waiting: 0,
            waiting_bytes: 0,
            records: 0,
        })
    }

    fn take(&mut self, record: Record) -> Result<()> {
        let tree = record.tree.as_deref().or(self.default);
        if tree != self.name.as_deref() {
            self.store()?;
            self.tree = self.base.tree(tree)?;
            self.name = tree.map(str::to_owned);
        }
        self.batch.put(&record.key, &record.value);
        self.waiting += 1;
        self.waiting_bytes += record.key.len() + record.value.len();
        self.records += 1;
        if self.waiting >= self.limit || self.waiting_bytes >= BATCH_BYTES {
            self.store()?;
        }
        Ok(())
    }

    /// Stores what waits.
    fn store(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        if self.waiting > 0 {
            let first = self.records - self.waiting as u64 + 1;
            self.tree.write(batch).kv(|| format!("store records {first} to {}", self.records))?;
        }
        (self.waiting, self.waiting_bytes) = (0, 0);
        Ok(())
    }
}

/// `kv dump`.
pub fn dump(opener: Opener, target: &Target, args: &Dump, output: &mut Output) -> Result<Verdict> {
    let begun = Instant::now();
    if is_standard(&args.file) && output.json() {
        let cause = "standard output can not hold both the dump and the document of --json";
        return Err(Failure::new("dump", cause, "name a file"));
    }
    let base = Base::read(opener, target)?;
    let progress = Progress::spinner("dumping", output.json());
    if is_standard(&args.file) {
        dump_to(&base, args, &progress, BufWriter::with_capacity(1 << 16, Through(output)))?;
    } else {
        let file = File::create(&args.file).context(|| format!("make {}", shown(&args.file)))?;
        let mut out = Counter { out: BufWriter::with_capacity(1 << 20, file), bytes: 0 };
        let records = dump_to(&base, args, &progress, &mut out)?;
        let synced = out.out.get_ref().sync_all();
        synced.context(|| format!("write {}", shown(&args.file)))?;
        let seconds = begun.elapsed().as_secs_f64();
        let done = Done { file: JsonName::new(&args.file), records, bytes: out.bytes, seconds };
        drop(progress);
        done.print("written", output)?;
    }
    base.close()?;
    Ok(Verdict::Good)
}

/// Standard output, which this program holds locked.
struct Through<'o>(&'o mut Output);

impl Write for Through<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Counts what is written.
struct Counter<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for Counter<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let put = self.out.write(buf)?;
        self.bytes += put as u64;
        Ok(put)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

fn dump_to(base: &Base<'_>, args: &Dump, progress: &Progress, out: impl Write) -> Result<u64> {
    let what = || format!("write {}", shown(&args.file));
    let mut writer = Writer::new(out, args.format).context(what)?;
    let one = |tree: &Tree, writer: &mut Writer<_>| -> Result<()> {
        for record in tree.range(..).kv(|| String::from("scan"))? {
            let (key, value) = record.kv(|| String::from("scan"))?;
            writer.record(&key, &value).context(what)?;
            progress.advance(1);
        }
        Ok(())
    };
    one(&base.tree(args.tree.as_deref())?, &mut writer)?;
    if args.tree.is_none() {
        for name in base.db.trees().kv(|| String::from("list the trees"))? {
            writer.tree(&name).context(what)?;
            one(&base.tree(Some(&name))?, &mut writer)?;
        }
    }
    writer.finish().context(what)
}
