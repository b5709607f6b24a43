# What the kernel really installs when a pool is written: its own trace events, counted.
. /guest/lib.sh
where_it_is
tracing=/sys/kernel/tracing
echo 16384 > $tracing/buffer_size_kb
echo 1 > $tracing/events/fs_dax/enable

# Counts the faults of a command: of 2 MiB installed, of 2 MiB given up, of 4 KiB.
traced() {
    echo > $tracing/trace
    echo 1 > $tracing/tracing_on
    "$@" > /dev/null
    echo 0 > $tracing/tracing_on
    pmd=$(grep dax_pmd_fault_done $tracing/trace | grep -c -v FALLBACK || true)
    fallback=$(grep dax_pmd_fault_done $tracing/trace | grep -c FALLBACK || true)
    pte=$(grep -c dax_pte_fault_done $tracing/trace || true)
    counts="$pmd PMD, $fallback given up, $pte PTE"
    # What `info` says of the file agrees with what the kernel did.
    case $fallback in
        0) lacks "$(warned $POOL)" 'costs huge pages' ;;
        *) holds "$(warned $POOL)" 'chunks do not lie at a multiple of 2 MiB' ;;
    esac
}
# 16 MiB in one file.
fill() { daxstore write $POOL /data < /tmp/random; }
echo 0 > $tracing/tracing_on
head -c 16777216 /dev/urandom > /tmp/random

rm -f $POOL
daxstore mkfs $POOL --size 64M
traced fill
note "sparse pool: $counts"

# Written as `info` advises.
rm -f $POOL
daxstore mkfs $POOL --size 64M
fallocate -l 67108864 $POOL.new
dd if=$POOL of=$POOL.new bs=2M conv=notrunc,fsync 2> /dev/null
mv $POOL.new $POOL
traced fill
note "written pool: $counts"
[ $pmd -ge 9 ] && [ $pte = 0 ] || fail "written pool: $counts"

# On a file system that knows nothing of 2 MiB.
umount /mnt
case $BACKEND in
    xfs) mkfs.xfs -q -f $BLOCK ;;
    ext4) mkfs.ext4 -q -F -b 4096 $BLOCK ;;
esac
mount -t $BACKEND -o dax=always $BLOCK /mnt
daxstore mkfs $POOL --size 64M
case $BACKEND in
    # A copy by fallocate lies where it likes, on an ext4 without a stride.
    ext4) fallocate -l 67108864 $POOL.new && dd if=$POOL of=$POOL.new bs=2M conv=notrunc,fsync 2> /dev/null && mv $POOL.new $POOL ;;
esac
traced fill
note "file system without 2 MiB in mind: $counts"
[ $pmd = 0 ] && [ $pte -gt 1000 ] || fail "askew and yet $counts"
echo 0 > $tracing/events/fs_dax/enable
umount /mnt
make_fs > /dev/null
mount -t $BACKEND -o dax=always $BLOCK /mnt
