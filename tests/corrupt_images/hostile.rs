//! Lies with a good seal: what somebody could write who knows the pool's seed.
use super::pool::Map;
use super::trial::{Bench, Expect};
use daxstore::Store;
use daxstore::error::Class;
use daxstore::layout::{
    Bits, ChunkObject, Counters, GroupObject, Image, Kind, NODE_FIXED_BYTES, ROOT_BYTES, RootArea, Superblock,
};
use daxstore::units::{Chunk, Group, Ino, PoolOff};

/// Packed records as they lie in a root area or a node.
fn pack(records: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut area: Vec<u8> = records.iter().flat_map(|(key, _)| key.to_le_bytes()).collect();
    let mut end = 0;
    for (_, payload) in records {
        end += payload.len() as u16;
        area.extend_from_slice(&end.to_le_bytes());
    }
    records.iter().for_each(|(_, payload)| area.extend_from_slice(payload));
    area
}

fn root(level: u8, records: &[(u64, Vec<u8>)]) -> RootArea {
    let packed = pack(records);
    let mut area = [0; ROOT_BYTES];
    area[..packed.len()].copy_from_slice(&packed);
    RootArea { level, count: records.len() as u16, used: packed.len(), area, ..RootArea::default() }
}

fn node(owner: Ino, level: u8, records: &[(u64, Vec<u8>)]) -> Image {
    let packed = pack(records);
    let mut image = Image::new(Kind::Node, NODE_FIXED_BYTES + packed.len());
    let bytes = image.bytes_mut();
    bytes[16..24].copy_from_slice(&owner.0.to_le_bytes());
    bytes[24] = level;
    bytes[26..28].copy_from_slice(&(records.len() as u16).to_le_bytes());
    bytes[32..].copy_from_slice(&packed);
    image
}

fn extent(file: u64, block: u64, len: u64, state: u64) -> (u64, Vec<u8>) {
    (file, (block | len << 36 | state << 62).to_le_bytes().to_vec())
}

fn entry(map: &Map<'_>, name: &[u8], ino: u64, kind: u8) -> (u64, Vec<u8>) {
    let mut payload = ino.to_le_bytes().to_vec();
    payload.push(kind);
    payload.extend_from_slice(name);
    (map.seed().name_key(name), payload)
}

fn child(key: u64, at: PoolOff) -> (u64, Vec<u8>) {
    (key, at.0.to_le_bytes().to_vec())
}

/// The nodes of the tree of `owner` named by its root area.
fn children(map: &Map<'_>, owner: Ino) -> Vec<PoolOff> {
    let root = map.inode(owner).root;
    assert!(root.level > 0);
    let from = usize::from(root.count) * 10;
    let payloads = root.area[from..root.used].chunks_exact(8);
    payloads.map(|at| PoolOff(u64::from_le_bytes(at.try_into().unwrap()))).collect()
}

struct Liar {
    bench: Bench,
}

impl Liar {
    fn ino(&self, path: &str) -> Ino {
        Ino(self.bench.original.items[std::path::Path::new(path)].as_ref().unwrap().ino)
    }

    fn lie(&self, what: &str, expect: Expect, tell: impl Fn(&Map<'_>)) {
        self.bench.trial(what, expect, |sim| tell(&Map::new(sim)));
    }

    fn inode(&self, what: &str, path: &str, tell: impl Fn(&mut daxstore::layout::Inode)) {
        let ino = self.ino(path);
        self.lie(&format!("{what} of {path}"), Expect::Found, |map| map.reseal_inode(ino, &tell));
    }

    /// Gives `path` the records as its whole tree.
    fn records(&self, what: &str, path: &str, records: impl Fn(&Map<'_>) -> RootArea) {
        let ino = self.ino(path);
        self.lie(&format!("{what} in {path}"), Expect::Found, |map| {
            let root = records(map);
            map.reseal_inode(ino, |inode| inode.root = root.clone());
        });
    }
}

fn liar() -> Liar {
    Liar { bench: Bench::new() }
}

#[test]
fn lies_of_inodes() {
    let liar = liar();
    for path in ["/hello", "/a", "/short", "/a/fragments", "/"] {
        for links in [0, 1, 7, u32::MAX] {
            if links != 1 || (path != "/short" && path != "/a/fragments") {
                liar.inode(&format!("{links} links"), path, |inode| inode.links = links);
            }
        }
        liar.inode("generation 0", path, |inode| inode.generation = 0);
        liar.inode("all flags", path, |inode| inode.flags = u32::MAX);
        liar.inode("a capacity", path, |inode| inode.capacity = 1 << 40);
        liar.inode("a hint", path, |inode| inode.hint = (1 << 18) + 1);
        liar.inode("blocks", path, |inode| inode.blocks = u64::MAX);
        for level in [1, 7, 24, 25, 255] {
            liar.inode(&format!("level {level}"), path, |inode| inode.root.level ^= level);
        }
        for count in [1, 2, 13, 1000, 65535] {
            liar.inode(&format!("{count} more records"), path, |inode| inode.root.count ^= count);
        }
        for at in [1, 256, 512, 4096, 1 << 20, (8 << 20) - 512, 8 << 20, u64::MAX, u64::MAX - 511] {
            for level in [0, 3, 24] {
                liar.inode("attributes elsewhere", path, |inode| {
                    (inode.xattrs, inode.xattr_level) = (PoolOff(at), level);
                });
            }
        }
    }
    for size in [u64::MAX, (1 << 62) + 1, 0] {
        for path in ["/hello", "/a", "/short", "/a/fragments"] {
            if size != 0 || path != "/hello" {
                liar.inode(&format!("size {size}"), path, |inode| inode.size = size);
            }
        }
    }
    for capacity in [1, (1 << 62) + 1, u64::MAX] {
        liar.inode(&format!("a sequential file with a capacity of {capacity}"), "/hello", |inode| {
            (inode.flags, inode.capacity) = (inode.flags | 2, capacity);
        });
    }
    for path in ["/a", "/a/b", "/"] {
        for parent in [0, 1, 12345, u64::MAX] {
            liar.inode("parent", path, |inode| inode.parent = Ino(parent));
        }
    }
    let (many, hello) = (liar.ino("/many"), liar.ino("/hello"));
    liar.inode("parent that is a file", "/a", |inode| inode.parent = hello);
    liar.inode("another parent", "/a", |inode| inode.parent = many);
    for kind in [0o100_000, 0o040_000, 0o120_000, 0o010_000, 0o170_000, 0x10000 | 0o100_644] {
        for path in ["/hello", "/a", "/short"] {
            let ino = liar.ino(path);
            liar.lie(&format!("mode {kind:o} of {path}"), Expect::NoHarm, |map| {
                map.reseal(ino.offset(), Kind::Inode, |image| {
                    image.bytes_mut()[16..20].copy_from_slice(&u32::to_le_bytes(kind));
                });
            });
        }
    }
}

/// A file that seems to have 2^62 bytes, which its size allows.
#[test]
fn a_size_that_can_be_is_believed_and_harms_nothing() {
    let liar = liar();
    let hello = liar.ino("/hello");
    for size in [1 << 62, 1 << 40, 4097, 13, 0] {
        liar.lie(&format!("size {size}"), Expect::NoHarm, |map| map.reseal_inode(hello, |i| i.size = size));
    }
}

#[test]
fn lies_about_versions() {
    let liar = liar();
    let objects = liar.bench.map().objects();
    let in_use = objects.iter().filter_map(|object| object.kind.map(|kind| (object, kind)));
    for (i, (object, kind)) in in_use.enumerate() {
        if i % 7 != 0 && !matches!(kind, Kind::Group | Kind::Chunk | Kind::Lane) {
            continue;
        }
        for version in [1 << 49, u64::MAX - 1, u64::MAX] {
            liar.lie(&format!("version {version:#x} of {object:?}"), Expect::Found, |map| {
                let mut image = map.image(object.at, kind);
                image.seal(map.seed(), object.at, version);
                map.sim.poke(object.at, image.bytes());
            });
        }
    }
}

#[test]
fn lies_of_extents() {
    let liar = liar();
    let blocks = liar.bench.map().geometry().blocks();
    let all = |file, block, len, state| move |_: &Map<'_>| root(0, &[extent(file, block, len, state)]);
    for path in ["/hello", "/a/fragments"] {
        for block in [0, 1, 2, 26, 27, 34, blocks - 1, blocks, 1 << 35, (1 << 36) - 1] {
            liar.records(&format!("pool block {block}"), path, all(0, block, 2, 1));
        }
        for len in [0, 1 << 20, (1 << 26) - 1] {
            liar.records(&format!("{len} blocks"), path, all(0, 600, len, 1));
        }
        for file in [1 << 50, u64::MAX, u64::MAX - 1, (1 << 50) - 1] {
            liar.records(&format!("file block {file}"), path, all(file, 600, 2, 1));
        }
        liar.records("unwritten and shared", path, all(0, 600, 1, 2));
        liar.records("blocks marked free", path, all(0, 1800, 1, 1));
        liar.records("a record of 7 bytes", path, |_| root(0, &[(0, vec![1; 7])]));
        liar.records("overlap", path, |_| root(0, &[extent(0, 600, 9, 1), extent(3, 700, 9, 1)]));
        liar.records("one block twice", path, |_| root(0, &[extent(0, 600, 9, 1), extent(9, 604, 9, 0)]));
        liar.records("beyond the end", path, |_| root(0, &[extent(1 << 30, 1800, 1, 1)]));
    }
    // Arenas are used already; so are other files' blocks.
    let arena = liar.ino("/hello").offset().block().0;
    liar.records("an arena", "/a/fragments", all(0, arena, 1, 1));
    let other = liar.bench.map().inode(liar.ino("/hello")).root;
    liar.records("another's blocks", "/kept", move |_| other.clone());
}

#[test]
fn lies_of_directories() {
    let liar = liar();
    let (hello, short, a, b, top) =
        (liar.ino("/hello").0, liar.ino("/short").0, liar.ino("/a").0, liar.ino("/a/b").0, liar.ino("/").0);
    let intents = liar.bench.map().superblock.intents.0;
    let numbers = [0, 1, 2, 3, intents, top, 1 << 15, (8 << 20) / 256, 1 << 56, u64::MAX / 256, u64::MAX];
    for (path, names) in [("/a/b", &[&b"c"[..], b"x"][..]), ("/many", &[b"y"]), ("/a/b/c", &[b"z"])] {
        for number in numbers {
            for kind in [8, 4, 10] {
                liar.records(&format!("an entry to {number}"), path, |map| {
                    let mut all: Vec<_> = names.iter().map(|name| entry(map, name, number, kind)).collect();
                    all.sort();
                    root(0, &all)
                });
            }
        }
        for (what, number) in [("itself", b), ("its parent", a), ("a file", hello), ("a link", short)] {
            for kind in [8, 4, 10, 0, 255] {
                let found = format!("an entry to {what} as {kind}");
                liar.records(&found, path, |map| root(0, &[entry(map, b"w", number, kind)]));
            }
        }
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 90]] {
            let what = format!("the name {:?}", String::from_utf8_lossy(name));
            liar.records(&what, path, |map| root(0, &[entry(map, name, hello, 8)]));
        }
        liar.records("a key of another name", path, |map| {
            root(0, &[(map.seed().name_key(b"other"), entry(map, b"name", hello, 8).1)])
        });
        liar.records("a name twice", path, |map| {
            let (key, payload) = entry(map, b"twice", hello, 8);
            root(0, &[(key, payload.clone()), (key + 1, payload)])
        });
        liar.records("keys that fall", path, |_| root(0, &[(9, vec![0; 10]), (3, vec![0; 10])]));
        liar.records("a short record", path, |_| root(0, &[(9, vec![1; 5])]));
    }
}

#[test]
fn directories_in_circles() {
    let liar = liar();
    let (a, b, c) = (liar.ino("/a"), liar.ino("/a/b"), liar.ino("/a/b/c"));
    liar.lie("a circle that nothing leads to", Expect::Found, |map| {
        // `b` goes from `a` into `c`, which is below it.
        map.reseal_inode(c, |inode| {
            inode.root = root(0, &[entry(map, b"b", b.0, 4)]);
            (inode.size, inode.links) = (1, 3);
        });
        map.reseal_inode(b, |inode| inode.parent = c);
        let (fragments, long) = (liar.ino("/a/fragments").0, liar.ino("/a/long").0);
        let mut left = vec![entry(map, b"fragments", fragments, 8), entry(map, b"long", long, 10)];
        left.sort();
        map.reseal_inode(a, |inode| {
            inode.root = root(0, &left);
            (inode.size, inode.links) = (2, 2);
        });
    });
    liar.lie("a circle from the root", Expect::Found, |map| {
        map.reseal_inode(c, |inode| {
            inode.root = root(0, &[entry(map, b"up", a.0, 4)]);
            (inode.size, inode.links) = (1, 3);
        });
    });
    let circle = |map: &Map<'_>| {
        map.reseal_inode(c, |inode| inode.root = root(0, &[entry(map, b"up", a.0, 4)]));
    };
    circle(&liar.bench.map());
    let store = Store::open_sim(liar.bench.sim.clone()).unwrap();
    let error = store.remove_dir_all("/a").unwrap_err();
    assert_eq!(error.class(), Class::Damage, "{error}");
    drop(store);
    liar.bench.sim.roll_back();
    liar.lie("a directory in itself", Expect::Found, |map| {
        map.reseal_inode(c, |inode| inode.root = root(0, &[entry(map, b"me", c.0, 4)]));
    });
}

#[test]
fn lies_of_nodes() {
    let liar = liar();
    for path in ["/many", "/a/fragments", "/a/long"] {
        let ino = liar.ino(path);
        let nodes = children(&liar.bench.map(), ino);
        let (first, last) = (nodes[0], nodes[nodes.len() - 1]);
        let other =
            children(&liar.bench.map(), liar.ino(if path == "/many" { "/a/long" } else { "/many" }))[0];
        let rewrite = |what: &str, make: &dyn Fn(&Map<'_>) -> Image| {
            liar.lie(&format!("{what} in {path}"), Expect::Found, |map| {
                let image = make(map);
                map.reseal(first, Kind::Node, |old| *old = image.clone());
            });
        };
        rewrite("a node that names itself", &|_| node(ino, 1, &[child(0, first)]));
        rewrite("a node that names another twice", &|_| {
            node(ino, 1, &[child(0, last), child(1 << 60, last)])
        });
        rewrite("an empty node", &|_| node(ino, 0, &[]));
        rewrite("another's node", &|_| node(Ino(7), 0, &[(0, vec![0; 8])]));
        rewrite("a high node", &|_| node(ino, 24, &[child(0, last)]));
        rewrite("keys of elsewhere", &|_| node(ino, 0, &[(u64::MAX, vec![0; 8])]));
        for at in [PoolOff(0), PoolOff(512), ino.offset(), other, PoolOff(8 << 20), PoolOff(u64::MAX - 511)] {
            for level in [1, 2, 24] {
                let what = format!("a root of level {level} to {at:?}");
                liar.records(&what, path, |_| root(level, &[child(0, at)]));
                liar.records(&what, path, |_| root(level, &[child(0, first), child(1 << 40, at)]));
            }
        }
        liar.records("one child twice", path, |_| root(1, &[child(0, first), child(1 << 40, first)]));
    }
}

#[test]
fn lies_of_attributes() {
    let liar = liar();
    let hello = liar.ino("/hello");
    let at = liar.bench.map().inode(hello).xattrs;
    let key = liar.bench.map().seed().name_key(b"n");
    let value = |len: u32, runs: &[(u64, u64)]| {
        let mut payload = vec![1, 1, b'n'];
        payload.extend_from_slice(&len.to_le_bytes());
        runs.iter().for_each(|(block, len)| payload.extend_from_slice(&(block | len << 36).to_le_bytes()));
        payload
    };
    for payload in [
        vec![],
        vec![1],
        vec![255, 0, 1],
        vec![1, 2, b'n'],
        vec![1, 1, b'n', 0],
        vec![0, 0],
        vec![1, 0, 0],
        value(4096, &[(0, 1)]),
        value(4096, &[(1 << 35, 1)]),
        value(65536, &[(600, (1 << 28) - 1)]),
        value(u32::MAX, &[(600, 1 << 20)]),
        value(8192, &[(900, 1), (900, 1)]),
        value(4096, &[(hello.offset().block().0, 1)]),
        value(4096, &[(2047, 1)]),
        value(8192, &[(2047, 2)]),
    ] {
        liar.lie(&format!("attribute {payload:?}"), Expect::Found, |map| {
            let image = node(hello, 0, &[(key, payload.clone())]);
            map.reseal(at, Kind::Node, |old| *old = image);
            map.reseal_inode(hello, |inode| inode.xattr_level = 0);
        });
    }
}

#[test]
fn lies_of_marks_and_counters() {
    let liar = liar();
    let geometry = liar.bench.map().geometry();
    let group = geometry.group_object(Group(0));
    let groups = [
        GroupObject { used: Bits::ALL, broken: Bits::default() },
        GroupObject { used: Bits::ALL, broken: Bits::ALL },
        GroupObject {
            used: Bits([0b1111, 0, 0, 0, 0, 0, 0, 0]),
            broken: Bits([0b1111, 0, 0, 0, 0, 0, 0, 0]),
        },
        GroupObject { used: Bits([0b1111, 0, 0, 0, 0, 0, 0, 0]), broken: Bits::default() },
        GroupObject { used: Bits::default(), broken: Bits::ALL },
        GroupObject::default(),
    ];
    for object in groups {
        liar.lie(&format!("{:x?} {:x?}", object.used.0, object.broken.0), Expect::Found, |map| {
            map.reseal(group, Kind::Group, |image| *image = object.encode());
        });
    }
    for chunk in 0..2 {
        let at = geometry.chunk_descriptor(Chunk(chunk));
        for (used, meta, class) in
            [(Bits::ALL, Bits::ALL, 1), (Bits::ALL, Bits::ALL, 2), (Bits::ALL, Bits::default(), 0)]
                .into_iter()
                .chain([
                    (Bits::default(), Bits::default(), 0),
                    (Bits::default(), Bits::ALL, 1),
                    (Bits::ALL, Bits::ALL, 9),
                ])
        {
            liar.lie(&format!("descriptor {chunk}: {used:?} {meta:?} {class}"), Expect::Found, |map| {
                map.reseal(at, Kind::Chunk, |image| {
                    *image = ChunkObject { used, meta, class: None }.encode();
                    image.bytes_mut()[144] = class;
                });
            });
        }
    }
    for value in [i64::MAX, i64::MIN, -1, 1 << 40] {
        for counters in [
            Counters { used: value, ..Counters::default() },
            Counters { unwritten: value, ..Counters::default() },
            Counters { inodes: value, ..Counters::default() },
            Counters { used: value, unwritten: value, inodes: value },
        ] {
            liar.lie(&format!("{counters:?}"), Expect::Found, |map| {
                for lane in 0..geometry.lanes {
                    map.reseal(geometry.lane(lane), Kind::Lane, |image| *image = counters.encode());
                }
            });
        }
    }
}

#[test]
fn lies_of_intents() {
    let liar = liar();
    let owner = liar.bench.map().superblock.intents;
    let record = |kind: u8, start: u64, end: u64, size: u64| {
        let mut bytes = vec![0; 32];
        bytes[0] = kind;
        bytes[8..16].copy_from_slice(&start.to_le_bytes());
        bytes[16..24].copy_from_slice(&end.to_le_bytes());
        bytes[24..].copy_from_slice(&size.to_le_bytes());
        bytes
    };
    let numbers = ["/hello", "/a", "/", "/short", "/many"].map(|path| liar.ino(path).0);
    let others = [0, 1, owner.0, 1 << 15, u64::MAX / 4];
    for number in numbers.into_iter().chain(others) {
        for kind in 0..=5 {
            for (start, end) in [(0, 0), (0, 1), (0, 1 << 49), (1 << 49, 1 << 50), (5, 2), (0, u64::MAX)] {
                let size = if kind == 3 { u64::MAX } else { 0 };
                let key = number.wrapping_mul(4) | u64::from(kind != 1);
                let what = format!("an intent of kind {kind} on {number}, {start} to {end}");
                liar.lie(&what, Expect::NoHarm, |map| {
                    let root = root(0, &[(key, record(kind, start, end, size))]);
                    map.reseal_inode(owner, |inode| inode.root = root);
                });
            }
        }
    }
}

/// Owners of shared blocks: the records, and what the extents say.
#[test]
fn lies_of_shares() {
    let liar = liar();
    let map = liar.bench.map();
    let owner = map.superblock.intents;
    let at = map.inode(owner).xattrs;
    let first = |path| {
        let root = map.inode(liar.ino(path)).root;
        let from = usize::from(root.count) * 10;
        u64::from_le_bytes(root.area[from..from + 8].try_into().unwrap()) & ((1 << 36) - 1)
    };
    let (one, hello) = (first("/one"), first("/hello"));
    let share = |block: u64, len: u64, owners: u64| (block, (len | owners << 32).to_le_bytes().to_vec());
    let right = vec![share(one, 3, 3), share(one + 3, 1, 2), share(one + 4, 4, 3)];
    liar.lie("what is there", Expect::NoLies, |map| {
        map.reseal(at, Kind::Node, |image| *image = node(owner, 0, &right));
    });
    assert!(liar.bench.sim.fork().is_ok());
    let lies = [
        ("too few owners", vec![share(one, 3, 2), share(one + 3, 1, 2), share(one + 4, 4, 3)]),
        ("too many", vec![share(one, 8, 3)]),
        ("millions", vec![share(one, 8, u64::from(u32::MAX))]),
        ("one owner", vec![share(one, 8, 1)]),
        ("no owner", vec![share(one, 8, 0)]),
        ("a part", vec![share(one, 3, 3)]),
        ("nothing there", vec![share(one, 0, 3)]),
        ("overlap", vec![share(one, 8, 3), share(one + 2, 3, 2)]),
        ("blocks that are not shared", vec![share(hello, 1, 2), share(one, 3, 3)]),
        ("outside", vec![share(u64::MAX, 1, 2), share(1 << 35, 9, 2)]),
        ("a header", vec![share(0, 9, 2)]),
        ("short", vec![(one, vec![1; 7])]),
    ];
    for (what, records) in lies {
        liar.lie(what, Expect::Found, |map| {
            map.reseal(at, Kind::Node, |image| *image = node(owner, 0, &records));
        });
    }
    liar.lie("no tree of shares", Expect::Found, |map| {
        map.reseal_inode(owner, |inode| (inode.xattrs, inode.xattr_level) = (PoolOff(0), 0));
    });
    liar.lie("another tree", Expect::Found, |map| {
        let other = map.inode(liar.ino("/hello")).xattrs;
        map.reseal_inode(owner, |inode| inode.xattrs = other);
    });
    let whole = |state| move |_: &Map<'_>| root(0, &[extent(0, one, 8, state)]);
    liar.records("shared blocks that say they are not", "/three", whole(1));
    liar.records("a file that shares what another has alone", "/kept", move |_| {
        root(0, &[extent(0, hello, 1, 3)])
    });
    liar.records("shared and unwritten", "/three", whole(2));
}

#[test]
fn lies_of_intents_to_move() {
    let liar = liar();
    let owner = liar.bench.map().superblock.intents;
    let record = |kind: u8, words: [u64; 4]| {
        let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes
    };
    let numbers = ["/hello", "/a/fragments", "/a", "/short"].map(|path| liar.ino(path).0);
    for number in numbers.into_iter().chain([owner.0, u64::MAX / 4]) {
        for kind in 4..=7 {
            for (start, end) in [(0, 0), (0, 1), (1, 4), (3, 1 << 49), (0, 1 << 50), (5, 2), (0, u64::MAX)] {
                for by in [0, 1, 3, end.wrapping_sub(start), 1 << 50, u64::MAX] {
                    let key = number.wrapping_mul(4) | 1;
                    let what = format!("an intent of kind {kind} on {number}, {start} to {end} by {by}");
                    liar.lie(&what, Expect::NoHarm, |map| {
                        let root = root(0, &[(key, record(kind, [start, end, 5000, by]))]);
                        map.reseal_inode(owner, |inode| inode.root = root);
                    });
                }
            }
        }
    }
}

#[test]
fn lies_of_superblocks() {
    let liar = liar();
    let (hello, a) = (liar.ino("/hello"), liar.ino("/a"));
    let tell = |what: &str, expect, change: &dyn Fn(&mut Superblock)| {
        liar.lie(what, expect, |map| map.reseal_superblocks(change));
    };
    for number in [Ino(0), Ino(1), Ino(u64::MAX), Ino(u64::MAX / 256), Ino(1 << 15), hello] {
        tell(&format!("root {number}"), Expect::NoHarm, &|s| s.root = number);
        tell(&format!("intents {number}"), Expect::NoHarm, &|s| s.intents = number);
    }
    tell("another root", Expect::NoHarm, &|s| s.root = a);
    tell("intents that are a directory", Expect::NoHarm, &|s| s.intents = a);
    tell("one for both", Expect::NoHarm, &|s| s.intents = s.root);
    tell("exchanged", Expect::NoHarm, &|s| std::mem::swap(&mut s.intents, &mut s.root));
    for epoch in [0, u64::MAX, u64::MAX >> 1, 1 << 63] {
        tell(&format!("epoch {epoch}"), Expect::NoHarm, &|s| s.epoch = epoch);
        tell(&format!("sequence {epoch}"), Expect::NoHarm, &|s| s.sequence = epoch);
    }
    for size in [0, 1, 8 << 20, (8 << 20) + 4096, 16 << 20, 16 << 40, u64::MAX] {
        tell(&format!("size {size}"), Expect::NoHarm, &|s| s.geometry.size = size);
    }
    for n in [0, 1, 3, 16, 255, 256, u32::MAX] {
        tell(&format!("{n} lanes"), Expect::NoHarm, &|s| s.geometry.lanes = n);
        tell(&format!("lanes of {n}"), Expect::NoHarm, &|s| s.geometry.lane_bytes = n);
        tell(&format!("arenas of {n}"), Expect::NoHarm, &|s| s.geometry.arena_blocks = n);
    }
    tell("lanes of 4096 bytes", Expect::NoHarm, &|s| s.geometry.lane_bytes = 4096);
    tell("the last lane bytes that fit", Expect::NoHarm, &|s| s.geometry.lane_bytes = 238 * 4096);
    tell("another seed", Expect::NoHarm, &|s| s.seed.0 ^= 1);
}
