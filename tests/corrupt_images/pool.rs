//! The pool that is damaged, and where its objects lie.
use daxstore::layout::{
    ChunkObject, Geometry, GroupObject, Image, Inode, Kind, MAX_OBJECT_BYTES, SUPERBLOCK_A, SUPERBLOCK_BYTES,
    Seed, SlotClass, Superblock,
};
use daxstore::pmem::sim::Sim;
use daxstore::units::{BLOCK_BYTES, Block, Chunk, Group, Ino, PoolOff};
use daxstore::{AllocateMode, Follow, OpenOptions, Store, StoreOptions, XattrMode};
use std::sync::Arc;

pub const SIZE: u64 = 8 << 20;

fn fill(store: &Store) {
    store.write("/hello", b"hello, world").unwrap();
    store.create_dir_all("/a/b/c", 0o755).unwrap();
    store.write("/a/b/c/deep", &[3; 9000]).unwrap();
    store.create_dir("/many", 0o711).unwrap();
    for i in 0..60 {
        store.write(format!("/many/file number {i}"), format!("content {i}").repeat(i).as_bytes()).unwrap();
    }
    store.hard_link("/hello", "/a/hello again").unwrap();
    store.symlink("hello", "/short").unwrap();
    store.symlink("x/".repeat(1200), "/a/long").unwrap();
    let fragments = store.create("/a/fragments").unwrap();
    for i in 0..120_u64 {
        fragments.write_all_at(&[i as u8 + 1; 4096], i * 2 * 4096).unwrap();
    }
    let kept = store.create("/kept").unwrap();
    kept.write_all_at(&[5; 100], 0).unwrap();
    kept.allocate(0, 50_000, AllocateMode::KeepSize).unwrap();
    for path in ["/hello", "/many", "/short"] {
        let node = store.open_node(path, Follow::No).unwrap();
        for i in 0..12 {
            node.set_xattr(format!("user.{i}"), &vec![i as u8; i * 30], XattrMode::Create).unwrap();
        }
        node.set_xattr("user.large", &[9; 6000], XattrMode::Create).unwrap();
    }
    store.write("/one", &[4; 8 * 4096]).unwrap();
    store.reflink("/one", "/two").unwrap();
    store.reflink("/one", "/three").unwrap();
    let two = store.open("/two", &OpenOptions::new().write(true)).unwrap();
    two.write_all_at(&[6; 4096], 3 * 4096).unwrap();
    for i in 0..10 {
        store.write(format!("/gone{i}"), &[1; 5000]).unwrap();
    }
    for i in 0..10 {
        store.remove_file(format!("/gone{i}")).unwrap();
    }
}

/// A closed pool with something of everything.
pub fn make() -> Arc<Sim> {
    let sim = Arc::new(Sim::new(SIZE).unwrap());
    let geometry = Geometry { size: SIZE, lanes: 2, lane_bytes: 16 << 10, arena_blocks: 2 };
    let store = Store::create_sim(sim.clone(), &StoreOptions::new().geometry(geometry)).unwrap();
    fill(&store);
    let report = store.check().unwrap();
    assert!(report.is_clean(), "{:?}", report.faults);
    store.close().unwrap();
    sim
}

/// An object on the media.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    pub at: PoolOff,
    /// `None` for a superblock.
    pub kind: Option<Kind>,
    /// Bytes that belong to it.
    pub len: usize,
    pub in_use: bool,
}

pub struct Map<'s> {
    pub sim: &'s Sim,
    pub superblock: Superblock,
}

impl<'s> Map<'s> {
    pub fn new(sim: &'s Sim) -> Self {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        sim.peek(SUPERBLOCK_A, &mut bytes);
        Self { sim, superblock: Superblock::decode(SUPERBLOCK_A, &bytes).unwrap() }
    }

    pub fn seed(&self) -> Seed {
        self.superblock.seed
    }

    pub fn geometry(&self) -> Geometry {
        self.superblock.geometry
    }

    pub fn image(&self, at: PoolOff, kind: Kind) -> Image {
        let mut slot = [0; MAX_OBJECT_BYTES];
        let slot = &mut slot[..kind.slot_bytes()];
        self.sim.peek(at, slot);
        Image::open(self.seed(), at, kind, slot).unwrap()
    }

    fn object(&self, at: PoolOff, kind: Kind) -> Object {
        let image = self.image(at, kind);
        Object { at, kind: Some(kind), len: image.bytes().len(), in_use: image.kind() != Kind::Free }
    }

    /// Every object of a pool of one group.
    pub fn objects(&self) -> Vec<Object> {
        let geometry = self.geometry();
        let mut all: Vec<_> = [SUPERBLOCK_A, daxstore::layout::SUPERBLOCK_B]
            .map(|at| Object { at, kind: None, len: SUPERBLOCK_BYTES, in_use: true })
            .into();
        all.extend((0..geometry.lanes).map(|lane| self.object(geometry.lane(lane), Kind::Lane)));
        let at = geometry.group_object(Group(0));
        all.push(self.object(at, Kind::Group));
        let group = GroupObject::decode(at, &self.image(at, Kind::Group), geometry.chunks()).unwrap();
        for chunk in (0..geometry.chunks()).filter(|i| *i == 0 || group.broken.get(*i)).map(Chunk) {
            let at = geometry.chunk_descriptor(chunk);
            all.push(self.object(at, Kind::Chunk));
            let object = ChunkObject::decode(at, &self.image(at, Kind::Chunk)).unwrap();
            let Some(class) = object.class else { continue };
            for block in (0..512).filter(|i| object.meta.get(*i)) {
                let block = Block(chunk.first_block().0 + block);
                all.extend(self.slots(block, class));
            }
        }
        all
    }

    fn slots(&self, block: Block, class: SlotClass) -> impl Iterator<Item = Object> {
        let slots = 0..BLOCK_BYTES / class.bytes();
        slots.map(move |i| self.object(PoolOff(block.offset().0 + i * class.bytes()), class.kind()))
    }

    pub fn inode(&self, ino: Ino) -> Inode {
        Inode::decode(ino.offset(), &self.image(ino.offset(), Kind::Inode)).unwrap().unwrap()
    }

    /// Changes an object and seals it again, as somebody would who knows the pool's seed.
    pub fn reseal(&self, at: PoolOff, kind: Kind, change: impl FnOnce(&mut Image)) {
        let mut image = self.image(at, kind);
        let version = image.version();
        change(&mut image);
        let version = if version == image.version() { version + 1 } else { image.version() };
        image.seal(self.seed(), at, version);
        self.sim.poke(at, image.bytes());
    }

    /// As [`Self::reseal`], of an inode.
    pub fn reseal_inode(&self, ino: Ino, change: impl FnOnce(&mut Inode)) {
        let mut inode = self.inode(ino);
        change(&mut inode);
        self.reseal(ino.offset(), Kind::Inode, |image| *image = inode.encode());
    }

    /// Writes both superblocks anew.
    pub fn reseal_superblocks(&self, change: impl FnOnce(&mut Superblock)) {
        let mut superblock = self.superblock.clone();
        change(&mut superblock);
        for at in [SUPERBLOCK_A, daxstore::layout::SUPERBLOCK_B] {
            self.sim.poke(at, &superblock.encode());
        }
    }
}
