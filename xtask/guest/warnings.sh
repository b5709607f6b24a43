# `info` warns of what costs huge pages or durability, and what it advises is a cure.
. /guest/lib.sh
where_it_is

memmap() { holds "$(warned $POOL)" 'set aside by `memmap=`'; }

case $BACKEND in
    plain)
        daxstore mkfs $POOL --size 64M --force
        holds "$(warned $POOL)" 'the pool is a plain file: every fence writes pages (msync)'
        holds "$(warned $POOL)" 'put it on a devdax device or on a file system mounted with `-o dax=always`'
        warned="$(daxstore info --assume-persistent $POOL | sed -n '/^WARNING/,$p')"
        holds "$warned" 'a power cut damages the pool'
        holds "$warned" 'leave --assume-persistent out'
        exit
        ;;
    devdax-2m)
        daxstore mkfs $POOL --size 64M --force
        memmap
        lacks "$(warned $POOL)" 'costs huge pages'
        exit
        ;;
    devdax-4k)
        daxstore mkfs $POOL --size 64M --force
        memmap
        holds "$(warned $POOL)" 'is mapped 4,096 bytes at a time'
        holds "$(warned $POOL)" 'ndctl create-namespace -f -e namespace0.0 -m devdax -a 2M'
        ndctl create-namespace -f -e namespace0.0 -m devdax -a 2M
        POOL=$(dax_device)
        daxstore mkfs $POOL --size 64M --force
        lacks "$(warned $POOL)" 'costs huge pages'
        note 'devdax made anew with 2 MiB: no more warning'
        ndctl create-namespace -f -e namespace0.0 -m devdax -a 4k
        exit
        ;;
esac

# A pool whose chunks are holes or unwritten, and the advised copy of it.
daxstore mkfs $POOL --size 64M --force
head -c 5000000 /dev/urandom > /tmp/random
daxstore write $POOL /random < /tmp/random
memmap
lacks "$(warned $POOL)" 'costs huge pages'
holds "$(warned $POOL)" 'have blocks that were never written'
note "$(warned $POOL | sed -n 's/.*: \(.* chunks\) have blocks that were never written.*/\1 unwritten, none after the advised copy/p')"
cure=$(warned $POOL | sed -n 's/.*`\(fallocate.*\)`.*/\1/p')
sh -c "$cure" 2> /dev/null
lacks "$(warned $POOL)" 'never written'
lacks "$(warned $POOL)" 'costs huge pages'
daxstore check $POOL
daxstore cat $POOL /random | cmp - /tmp/random

# The same memory mounted without DAX.
umount /mnt
mount -t $BACKEND -o dax=never $BLOCK /mnt
holds "$(warned $POOL)" 'mounted without DAX'
cure=$(warned $POOL | sed -n 's/.*`\(umount.*\)`.*/\1/p')
sh -c "$cure"
lacks "$(warned $POOL)" 'mounted without DAX'

# A file system that knows nothing of 2 MiB.
umount /mnt
case $BACKEND in
    xfs) mkfs.xfs -q -f $BLOCK ;;
    ext4) mkfs.ext4 -q -F -b 4096 $BLOCK ;;
esac
mount -t $BACKEND -o dax=always $BLOCK /mnt
daxstore mkfs $POOL --size 64M
daxstore write $POOL /random < /tmp/random
warned $POOL
case $BACKEND in
    xfs)
        holds "$(warned $POOL)" 'chunks do not lie at a multiple of 2 MiB'
        note "mkfs.xfs without su: $(warned $POOL | sed -n 's/.*: \(.* chunks\) do not lie.*/\1 askew/p'), none after the advised mkfs"
        cure=$(warned $POOL | sed -n 's/.*`\(mkfs.xfs.*\)`.*/\1/p')
        umount /mnt
        sh -c "$cure" > /dev/null
        mount -t $BACKEND -o dax=always $BLOCK /mnt
        daxstore mkfs $POOL --size 64M
        daxstore write $POOL /random < /tmp/random
        lacks "$(warned $POOL)" 'costs huge pages'
        ;;
    ext4)
        # It places the first blocks of an empty file system well by itself.
        note "mkfs.ext4 without stride: $(warned $POOL | grep -c 'huge pages' || true) warnings of huge pages"
        umount /mnt
        make_fs
        mount -t $BACKEND -o dax=always $BLOCK /mnt
        ;;
esac
rm -f $POOL

# A tmpfs.
daxstore mkfs /dev/shm/pool --size 64M
holds "$(warned /dev/shm/pool)" 'costs durability'
holds "$(warned /dev/shm/pool)" 'pages of 4 KiB'
cure=$(warned /dev/shm/pool | sed -n 's/.*`\(mount.*\)`.*/\1/p')
sh -c "$cure"
lacks "$(warned /dev/shm/pool)" 'pages of 4 KiB'
rm /dev/shm/pool
mount -o remount,huge=never /dev/shm
