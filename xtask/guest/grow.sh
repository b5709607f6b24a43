# A pool in a file grows; one on a device grows to the device's end and no further.
. /guest/lib.sh
where_it_is
daxstore mkfs $POOL --size 64M --force
echo 'written before' | daxstore write $POOL /before
daxstore grow $POOL --size 128M
holds "$(daxstore info --json $POOL)" '"size": 134217728'
head -c 90000000 /dev/zero | daxstore write $POOL /large
[ "$(daxstore cat $POOL /before)" = 'written before' ]
daxstore check $POOL
case $BACKEND in
    devdax-*)
        refused daxstore grow $POOL --size 1G
        note "beyond the device's end: ${said#daxstore: }"
        ;;
esac
