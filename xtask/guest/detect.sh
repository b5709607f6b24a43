# `info` says what the pool lies on; a second opener hears who holds it.
. /guest/lib.sh
where_it_is
daxstore mkfs $POOL --size 64M --force
info=$(daxstore info --json $POOL)
case $BACKEND in
    xfs | ext4) holds "$info" '"medium": "file on a DAX file system"' ;;
    devdax-2m) holds "$info" '"medium": "devdax device, alignment 2097152 bytes"' ;;
    devdax-4k) holds "$info" '"medium": "devdax device, alignment 4096 bytes"' ;;
    plain) holds "$info" '"medium": "plain file"' ;;
esac
case $BACKEND in
    plain) holds "$info" '"backend": "pages (msync)"' ;;
    *) holds "$info" '"backend": "lines (clwb)"' ;;
esac
holds "$info" '"durability": "survives power loss"'

vm-guest hold $POOL > /tmp/held &
holder=$!
until grep -q held /tmp/held; do sleep 0.1; done
refused daxstore mkdir $POOL /second
kill $holder
holds "$said" "$holder"
holds "$said" vm-guest
wait $holder || true
daxstore mkdir $POOL /second
