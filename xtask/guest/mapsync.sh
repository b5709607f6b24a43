# Without DAX the kernel refuses MAP_SYNC: pages are written instead, unless the user promises otherwise.
. /guest/lib.sh
where_it_is
umount /mnt
mount -t $BACKEND -o dax=never $BLOCK /mnt
daxstore mkfs $POOL --size 64M --force
info=$(daxstore info --json $POOL)
holds "$info" '"medium": "plain file"'
holds "$info" '"backend": "pages (msync)"'
holds "$info" '"durability": "survives power loss"'
info=$(daxstore info --json --assume-persistent $POOL)
holds "$info" '"medium": "plain file, assumed to be persistent memory"'
holds "$info" '"survives_power_loss": false'
umount /mnt
mount_dax
holds "$(daxstore info --json $POOL)" '"medium": "file on a DAX file system"'
daxstore check $POOL

daxstore mkfs /dev/shm/pool --size 64M
info=$(daxstore info --json /dev/shm/pool)
holds "$info" '"medium": "plain file"'
holds "$info" '"survives_power_loss": false'
rm /dev/shm/pool
