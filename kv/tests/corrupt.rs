//! Does a database with damage say so, and give no wrong answer?
//!
//! Every byte of what is found by its place, of headers and of words, and samples of all else, is changed in an image of a closed database and in
//! one that power cut left. Then: an open says what is wrong, or every key has its value or an error; where a key is missing, `verify` tells of
//! damage; and further changes end, without a panic. A trial that does not end ends the test.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test has nobody to report to")]
#![allow(clippy::single_range_in_vec_init, reason = "the range is what is meant")]

mod corrupt {
    pub mod files;
    pub mod image;
}

use corrupt::image::{Image, Tried, watch};

/// Changes of a byte.
const CHANGES: [fn(u8) -> u8; 4] = [|b| b ^ 0xff, |_| 0, |b| b ^ 1 << (b % 8), |b| b ^ 0x80 >> (b % 7)];

/// Tries changes of one byte in `step` of each range, from another one on for each change.
fn bytes(image: &Image, ranges: &[std::ops::Range<u64>], step: usize) -> Tried {
    let mut tried = Tried::default();
    for range in ranges {
        for (n, change) in CHANGES.iter().enumerate() {
            for at in range.clone().skip(n * 3 % step).step_by(step) {
                let old = image.byte(at);
                if change(old) != old {
                    tried.add(image.trial(&[(at, change(old))]));
                }
            }
        }
    }
    println!("{tried:?}");
    tried
}

/// Tries words of all ones, of zeros, and with a few low bits, in place of every `step`-th word.
fn words(image: &Image, ranges: &[std::ops::Range<u64>], step: usize) -> Tried {
    let mut tried = Tried::default();
    for range in ranges {
        for at in range.clone().step_by(8 * step) {
            for word in [u64::MAX, 0, 1 << 47, image.word(at).wrapping_add(1), image.word(at).wrapping_mul(3)]
            {
                let bytes: Vec<_> = (at..).zip(word.to_le_bytes()).collect();
                tried.add(image.trial(&bytes));
            }
        }
    }
    println!("{tried:?}");
    tried
}

#[test]
fn the_superblock() {
    for image in [Image::closed(), Image::crashed()] {
        let _watched = watch("the superblock");
        let tried = bytes(&image, &[0..64, 256..264, 320..328, 384..392, 512..576], 1);
        assert!(tried.refused > 100, "{tried:?}");
        words(&image, &[8..48, 256..264, 320..328, 384..392, 512..576], 1);
    }
}

#[test]
fn rings() {
    for image in [Image::closed(), Image::crashed()] {
        let _watched = watch("rings");
        let ring = image.ring();
        let tried = bytes(&image, &[ring..ring + 16, ring + 64..ring + 320], 1);
        assert!(tried.refused > 10, "{tried:?}");
        words(&image, &[ring..ring + 320], 1);
    }
}

#[test]
fn the_catalog() {
    let image = Image::closed();
    let _watched = watch("the catalog");
    let tried = bytes(&image, &[589_824..589_824 + 44, 590_080..590_080 + 44, 590_336..590_336 + 44], 1);
    assert!(tried.refused > 100, "{tried:?}");
    words(&image, &[589_824..589_824 + 32, 590_080..590_080 + 32], 1);
}

#[test]
fn the_table_of_chunks() {
    let image = Image::closed();
    let _watched = watch("the table of chunks");
    let tried = bytes(&image, &[(1 << 20)..(1 << 20) + 56], 1);
    assert!(tried.refused > 10, "{tried:?}");
}

#[test]
fn maps_of_pages() {
    let image = Image::closed();
    let _watched = watch("maps of pages");
    for map in image.maps() {
        let tried = bytes(&image, &[map..map + 160, map + 2000..map + 2048], 3);
        assert!(tried.refused + tried.named > 10, "{tried:?}");
    }
}

#[test]
fn the_directory() {
    let image = Image::closed();
    let _watched = watch("the directory");
    for (at, len) in image.pages(2) {
        let tried = bytes(&image, &[at..at + len.min(64)], 1);
        assert!(tried.refused > 10, "{tried:?}");
    }
}

#[test]
fn segments() {
    let image = Image::closed();
    let _watched = watch("segments");
    for (at, len) in image.pages(1) {
        let tried = bytes(&image, &[at..at + len], 53);
        assert!(tried.named > 10, "{tried:?}");
    }
}

#[test]
fn the_ordered_index() {
    let image = Image::closed();
    let _watched = watch("the ordered index");
    for (at, len) in image.pages(4) {
        bytes(&image, &[at..at + 72.min(len)], 7);
        bytes(&image, &[at + 72.min(len)..at + len.min(256)], 23);
    }
}

#[test]
fn records() {
    let image = Image::closed();
    let _watched = watch("records");
    for at in image.records() {
        bytes(&image, &[at..at + 32], 5);
    }
    let (mut tried, slabs) = (Tried::default(), image.pages(5));
    for (at, _) in slabs {
        tried = bytes(&image, &[at..at + 2048], 61);
    }
    assert!(tried.bare + tried.named > 0, "{tried:?}");
}

/// Several bytes at once, anywhere that is in use.
#[test]
fn many_places() {
    for (image, seed) in [(Image::closed(), 1_u64), (Image::crashed(), 2)] {
        let _watched = watch("many places");
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) % below
        };
        let used = image.used();
        let mut tried = Tried::default();
        for _ in 0..400 {
            let places = 1 + next(12);
            let changes: Vec<_> =
                (0..places).map(|_| (used[next(used.len() as u64) as usize], next(256) as u8)).collect();
            tried.add(image.trial_of_many(&changes));
        }
        println!("{tried:?}");
        assert!(tried.refused > 0 && tried.named > 0, "{tried:?}");
    }
}
