# Files as memory: what is seen through mappings, which translations the kernel makes, a short stress; in modes U and S.
. /guest/lib.sh
where_it_is
case $BACKEND in
    devdax-2m) unit=device:2097152 ;;
    devdax-4k) unit=device:4096 ;;
    *) unit=4096 ;;
esac
part() { vm-guest mapping $1 $POOL $unit $2; }
anew() { case $BACKEND in devdax-*) ;; *) rm -f $POOL ;; esac; }
# The file system is mounted anew, which forgets by which sizes the pool was mapped.
mounted_anew() {
    umount /mnt
    mount -t $BACKEND -o dax=always $BLOCK /mnt
}

echo 65536 > /sys/kernel/tracing/buffer_size_kb
echo 0 > /sys/kernel/tracing/tracing_on
for mode in U S; do
    for name in seen huge; do
        anew
        part $name $mode
    done
    case $BACKEND in
        devdax-2m) part devices $mode ;;
        xfs | ext4)
            anew
            part kept $mode
            mounted_anew
            part kept $mode
            anew
            at=$(part spoiled $mode | sed -n 's/^at //p')
            mounted_anew
            xfs_io -r -c "mmap -r $at 4096" -c "mread -r $at 8" $POOL > /dev/null
            part spoiled $mode
            ;;
    esac
    anew
    part stress $mode
done
anew
[ $BACKEND = xfs ] || exit 0

# On a file system that knows nothing of 2 MiB.
umount /mnt
mkfs.xfs -q -f $BLOCK
mount -t $BACKEND -o dax=always $BLOCK /mnt
for mode in U S; do
    anew
    part askew $mode
done
umount /mnt
make_fs > /dev/null
mount -t $BACKEND -o dax=always $BLOCK /mnt
