//! What does it cost to make bytes durable on each kind of medium?
//!
//! Every measured step ends in a fence. Offsets advance through a window larger than the caches near the core, so that
//! lines are not found in them, as they are not when a store takes free space. The files lie in `/dev/shm`, and for
//! the pages of a disk in the directory for temporary files.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::unwrap_used, reason = "a bench has nobody to report to")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use daxstore::pmem::{Region, RegionOptions};
use daxstore::units::PoolOff;
use std::hint::black_box;
use std::path::Path;

const POOL: u64 = 256 << 20;
const WINDOW: u64 = 64 << 20;

fn region(dir: &Path, options: &RegionOptions) -> (tempfile::TempDir, Region) {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let region = Region::create_file(dir.path().join("pool"), POOL, options).unwrap();
    region.provision(PoolOff(0), WINDOW).unwrap();
    region.zero_nt(PoolOff(0), WINDOW).unwrap();
    region.fence().unwrap();
    (dir, region)
}

/// Offsets at a distance of `step` that go round in the window.
fn offsets(step: u64) -> impl FnMut() -> u64 {
    let mut at = 0;
    move || {
        at = if at + 2 * step > WINDOW { 0 } else { at + step };
        at
    }
}

fn copies(c: &mut Criterion, name: &str, region: &Region, lengths: &[usize], skew: u64) {
    let mut group = c.benchmark_group(name);
    let bytes = vec![7; 1 << 20];
    for &len in lengths {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            let mut next = offsets((len as u64 + 64).next_power_of_two());
            b.iter(|| {
                region.copy_nt(PoolOff(next() + skew), black_box(&bytes[..len])).unwrap();
                region.fence().unwrap();
            });
        });
    }
    group.finish();
}

fn lines(c: &mut Criterion) {
    let options = RegionOptions { assume_persistent: true, ..RegionOptions::default() };
    let (_dir, region) = region(Path::new("/dev/shm"), &options);
    let lengths = [64, 256, 1024, 4096, 65536, 1 << 20];
    copies(c, "lines/copy_nt+fence", &region, &lengths, 0);
    copies(c, "lines/copy_nt ragged+fence", &region, &[100, 1000, 4000], 13);
    let mut next = offsets(4096);
    c.bench_function("lines/zero_nt 4096+fence", |b| {
        b.iter(|| {
            region.zero_nt(PoolOff(next()), 4096).unwrap();
            region.fence().unwrap();
        });
    });
    for len in [8, 256] {
        let (bytes, mut next) = ([7; 256], offsets(256));
        c.bench_function(&format!("lines/store+flush {len}+fence"), |b| {
            b.iter(|| {
                let at = PoolOff(next());
                region.store(at, black_box(&bytes[..len])).unwrap();
                region.flush(at, len as u64).unwrap();
                region.fence().unwrap();
            });
        });
    }
    let mut buf = [0; 4096];
    let mut next = offsets(4096);
    c.bench_function("lines/read 4096", |b| {
        b.iter(|| region.read(PoolOff(next()), black_box(&mut buf)).unwrap())
    });
}

fn libpmem(c: &mut Criterion) {
    if cfg!(feature = "libpmem") {
        let options = RegionOptions { assume_persistent: true, libpmem: true, ..RegionOptions::default() };
        let (_dir, region) = region(Path::new("/dev/shm"), &options);
        copies(c, "libpmem/copy_nt+fence", &region, &[64, 256, 1024, 4096, 65536], 0);
    }
}

fn pages(c: &mut Criterion) {
    let (_dir, region) = region(&std::env::temp_dir(), &RegionOptions::default());
    copies(c, "pages/copy_nt+fence", &region, &[64, 4096, 65536], 0);
}

criterion_group!(benches, lines, libpmem, pages);
criterion_main!(benches);
