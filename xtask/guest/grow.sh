# A pool in a file grows; one on a device grows to the device's end and no further.
. /guest/lib.sh
where_it_is
daxstore mkfs $POOL --size 64M --force
echo 'written before' | daxstore write $POOL /before
daxstore grow $POOL --size 128M
holds "$(daxstore info --json $POOL)" '"size": 134217728'
daxstore fallocate $POOL /large --length 100M
head -c 3000000 /dev/urandom > /tmp/random
daxstore write $POOL /large --offset 70M < /tmp/random
daxstore get $POOL /large /tmp/large
tail -c +73400321 /tmp/large | head -c 3000000 | cmp - /tmp/random
rm /tmp/large /tmp/random
[ "$(daxstore cat $POOL /before)" = 'written before' ]
daxstore check $POOL
case $BACKEND in
    devdax-*)
        refused daxstore grow $POOL --size 1G
        note "beyond the device's end: ${said#daxstore: }"
        ;;
esac
