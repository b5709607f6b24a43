//! One bit at a time.
use super::pool::{Map, make};
use super::trial::{Bench, Expect};
use daxstore::Store;
use daxstore::pmem::sim::Sim;
use daxstore::units::PoolOff;

fn flip(sim: &Sim, at: PoolOff, bit: usize) {
    let at = PoolOff(at.0 + bit as u64 / 8);
    let mut byte = [0];
    sim.peek(at, &mut byte);
    sim.poke(at, &[byte[0] ^ 1 << (bit % 8)]);
}

/// A small generator, so that a failure can be had again.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[test]
fn a_check_finds_every_flipped_bit_of_every_object() {
    let sim = make();
    let store = Store::open_sim(sim.clone()).unwrap();
    let objects = Map::new(&sim).objects();
    assert!(objects.iter().filter(|o| o.in_use).count() > 90, "{}", objects.len());
    let mut free = 0;
    for object in &objects {
        // Of the free slots, which are all alike, some.
        free += usize::from(!object.in_use);
        if !object.in_use && free % 8 != 0 {
            continue;
        }
        for bit in 0..object.len * 8 {
            flip(&sim, object.at, bit);
            let report = store.check().unwrap();
            assert!(!report.is_clean(), "bit {bit} of {object:?}");
            flip(&sim, object.at, bit);
        }
    }
    assert!(store.check().unwrap().is_clean());
}

#[test]
fn a_flipped_bit_tells_no_lies_and_can_be_mended() {
    let bench = Bench::new();
    let objects = bench.map().objects();
    let mut random = Random(1);
    for object in &objects {
        let samples = if object.in_use { 4 } else { u64::from(random.below(16) == 0) };
        for _ in 0..samples {
            let bit = random.below(object.len as u64 * 8) as usize;
            let what = format!("bit {bit} of {object:?}");
            bench.trial(&what, Expect::NoLies, |sim| flip(sim, object.at, bit));
        }
    }
}

#[test]
fn a_bit_anywhere_in_the_pools_headers_does_no_harm() {
    let bench = Bench::new();
    let headers = bench.map().geometry().header_blocks(daxstore::units::Group(0));
    let mut random = Random(2);
    for _ in 0..300 {
        let bit = random.below(headers * 4096 * 8) as usize;
        bench.trial(&format!("header bit {bit}"), Expect::NoLies, |sim| flip(sim, PoolOff(0), bit));
    }
}
