# CXL memory, by the commands of the guide: a region, a device, a pool; a tree and mapped files in it; given to the kernel
# as ordinary memory and taken back.
. /guest/lib.sh
POOL=
holds "$(page 'cxl list -M')" '"memdev":"mem0"'
cxl_region > /dev/null
holds "$(page 'cxl list -RD')" '"decode_state":"commit"'
where_it_is
[ $POOL = /dev/dax0.0 ] || fail "the device is $POOL"

daxstore mkfs $POOL --size 192M
info=$(daxstore info --json $POOL)
holds "$info" '"medium": "devdax device, alignment 2097152 bytes"'
holds "$info" '"backend": "lines (clwb)"'
holds "$info" '"durability": "survives power loss"'
[ -z "$(warned $POOL)" ] || fail "$(warned $POOL)"
[ -d /disk/tree ] || vm-guest make-tree /disk/tree
daxstore put $POOL /disk/tree /
daxstore check $POOL
rm -rf /disk/out
daxstore get $POOL /tree /disk/out
vm-guest compare /disk/tree /disk/out
rm -rf /disk/out
for mode in U S; do
    vm-guest mapping seen $POOL device:2097152 $mode
    vm-guest mapping huge $POOL device:2097152 $mode
done

before=$(awk '/MemTotal/ { print $2 }' /proc/meminfo)
daxctl reconfigure-device --mode=system-ram dax0.0
after=$(awk '/MemTotal/ { print $2 }' /proc/meminfo)
[ $after -gt $((before + 500000)) ] || fail "the kernel had $before KiB and has $after"
if daxctl reconfigure-device --mode=devdax dax0.0 2> /tmp/said; then fail 'given back without --force'; fi
page 'daxctl reconfigure-device --force --mode=devdax dax0.0'
daxstore mkfs $POOL --size 64M --force
daxstore check $POOL
note "$((after - before)) KiB for the kernel, and back as a device"
