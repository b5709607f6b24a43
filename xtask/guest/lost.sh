# What two scenarios share: a page of a file is lost while the pool is closed, in each mode of mapping.
. /guest/lib.sh
where_it_is
case $BACKEND in
    devdax-2m) unit=device:2097152 ;;
    devdax-4k) unit=device:4096 ;;
    *) unit=4096 ;;
esac
# In the second slot of the file, and not at its start.
at=2113536

# A pool with a file of random bytes; sets $place to where byte $at of it lies in the pool.
pool_with_a_file() {
    daxstore mkfs $POOL --size 64M --force
    head -c 6291456 /dev/urandom > /tmp/random
    daxstore write $POOL /data < /tmp/random
    daxstore write $POOL /whole < /tmp/random
    place=
    daxstore extents $POOL /data > /tmp/extents
    while read state offset len start _; do
        [ "$state" = mapped ] && [ $at -ge $offset ] && [ $at -lt $((offset + len)) ] || continue
        place=$((start + at - offset))
    done < /tmp/extents
    [ -n "$place" ] || fail "$(cat /tmp/extents)"
}

all_of() { daxstore cat $POOL $1 > /dev/null; }

# The tool tells of the loss at $place, and what is not lost can be read.
told() {
    holds "$(daxstore info --json $POOL)" "\"at\": $place,"
    holds "$(daxstore info $POOL)" 'BAD MEDIUM'
    refused daxstore check $POOL
    holds "$said" /data
    refused all_of /data
    holds "$said" 'are lost'
    daxstore cat $POOL /whole | cmp - /tmp/random
}
