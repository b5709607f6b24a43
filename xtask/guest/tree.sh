# A tree goes into a pool and comes back the same.
. /guest/lib.sh
where_it_is
daxstore mkfs $POOL --size 192M --force --label tree
[ -d /disk/tree ] || vm-guest make-tree /disk/tree
daxstore put $POOL /disk/tree /
daxstore check $POOL
rm -rf /disk/out
daxstore get $POOL /tree /disk/out
vm-guest compare /disk/tree /disk/out
rm -rf /disk/out
