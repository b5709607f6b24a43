# The kernel takes blocks of memory behind a file system for bad: what is lost is refused, an overwrite repairs it, and
# the kernel forgets it. It does not let `ndctl` inject errors into `memmap=` memory, but takes them by its own list.
. /guest/lost.sh
list=/sys/block/pmem0/badblocks

# The sector of the device that byte $1 of the pool's file lies in.
sector_of() {
    xfs_io -r -c fiemap $POOL | sed -n 's/.*\[\([0-9]*\)\.\.\([0-9]*\)\]: \([0-9]*\)\.\..*/\1 \2 \3/p' > /tmp/fiemap
    while read first last start; do
        [ $(($1 / 512)) -ge $first ] && [ $(($1 / 512)) -le $last ] && echo $(($1 / 512 - first + start))
    done < /tmp/fiemap
}

set +e
injected=$(ndctl inject-error --block=1000 --count=1 namespace0.0 2>&1)
set -e
holds "$injected" 'error injection not supported'

for mode in U S; do
    pool_with_a_file
    echo "$(sector_of $place) 8" > $list
    # The kernel itself reads nothing there.
    if dd if=$POOL of=/dev/null bs=4096 skip=$((place / 4096)) count=1 2> /dev/null; then fail 'the kernel read it'; fi
    told
    vm-guest lost $POOL $unit $mode $at
    [ -z "$(cat $list)" ] || fail "still bad: $(cat $list)"
    daxstore check $POOL
    lacks "$(daxstore info $POOL)" 'BAD MEDIUM'
    note "$mode: repaired, and the kernel's list is empty"
done
rm -f $POOL
