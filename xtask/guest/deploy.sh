# The commands of docs/deploy.md, word for word, from memory that holds nothing to a pool that is mapped 2 MiB at a time.
# xtask/tests/page.rs sees that none is left out.
. /guest/lib.sh
where_it_is

# 1. The memory.
memmap=$(tr ' ' '\n' < /proc/cmdline | grep '^memmap=')
grep -q -x -F "    $memmap" /guest/deploy.md || fail "docs/deploy.md has another argument than $memmap"
grep -q 'Persistent Memory (legacy)' /proc/iomem || fail 'not in /proc/iomem'
holds "$(page 'ndctl list -R')" '"dev":"region0"'
holds "$(page 'ndctl list -N -i')" '"dev":"namespace0.0"'
# It was used before, which new memory was not.
case $BACKEND in
    devdax-*) page 'ndctl create-namespace -f -e namespace0.0 -m fsdax -a 2M' > /dev/null ;;
    *) umount /mnt ;;
esac
dd if=/dev/zero of=/dev/pmem0 bs=1M count=64 2> /dev/null

# Whoever is not root, in the group that the page makes.
as_user() { su -s /bin/sh user -c "$*"; }
device_of_a_group() {
    echo 'root:x:0:0::/:/bin/sh' > /etc/passwd
    echo 'user:x:1000:1000::/:/bin/sh' >> /etc/passwd
    echo 'root:x:0:' > /etc/group
    page 'groupadd --system dax'
    sed -i 's/^\(dax:.*:\)$/\1user/' /etc/group
    refused as_user daxstore check /dev/dax0.0
    holds "$said" 'Permission denied'
    page 'chown root:dax /dev/dax0.0'
    page 'chmod 660 /dev/dax0.0'
    as_user daxstore check /dev/dax0.0
    chown root:root /dev/dax0.0
    chmod 600 /dev/dax0.0
}
# The rule holds for a device that comes later.
rule_of_udev() {
    [ -e /bin/udevadm ] || { note 'no udev'; return; }
    mkdir -p /etc/udev/rules.d /run/udev
    ln -sf udevadm /bin/systemd-udevd
    systemd-udevd --daemon
    page "echo 'SUBSYSTEM==\"dax\", GROUP=\"dax\", MODE=\"0660\"' > /etc/udev/rules.d/70-dax.rules"
    page 'udevadm control --reload'
    page 'udevadm trigger --action=add --subsystem-match=dax'
    udevadm settle
    holds "$(ls -l /dev/dax0.0)" 'crw-rw----'
    as_user daxstore check /dev/dax0.0
    page 'ndctl create-namespace -f -e namespace0.0 -m devdax -a 2M' > /dev/null
    udevadm settle
    as_user daxstore check /dev/dax0.0
    udevadm control --exit
    note 'the rule of udev gives the device to the group, also when it is made again'
}

if [ $BACKEND = devdax-2m ]; then
    page 'ndctl create-namespace -f -e namespace0.0 -m devdax -a 2M' > /dev/null
    page 'daxstore mkfs /dev/dax0.0 --size 512M'
    lacks "$(warned /dev/dax0.0)" 'costs huge pages'
    device_of_a_group
    rule_of_udev
    exit
fi

# 2. A file system.
page 'ndctl create-namespace -f -e namespace0.0 -m fsdax -a 2M' > /dev/null
case $BACKEND in
    xfs)
        page 'mkfs.xfs -f -d su=2m,sw=1 /dev/pmem0' > /dev/null
        page "echo '/dev/pmem0 /mnt xfs dax=always 0 0' >> /etc/fstab"
        page 'mount /mnt'
        umount /mnt
        ;;
    ext4) page 'mkfs.ext4 -b 4096 -E stride=512,stripe_width=512 /dev/pmem0' > /dev/null ;;
esac
page 'mount -o dax=always /dev/pmem0 /mnt'
holds "$(grep /mnt /proc/mounts)" 'dax=always'

# 3. The pool.
page 'daxstore mkfs /mnt/pool --size 256M'
page 'daxstore info /mnt/pool'
lacks "$(warned /mnt/pool)" 'costs huge pages'
page 'fallocate -l 268435456 /mnt/pool.new'
page 'dd if=/mnt/pool of=/mnt/pool.new bs=2M conv=notrunc,fsync'
page 'mv /mnt/pool.new /mnt/pool'
lacks "$(warned /mnt/pool)" 'never written'
# Cures of its table; those of a device are above.
umount /mnt
mount -o dax=never /dev/pmem0 /mnt
holds "$(warned /mnt/pool)" 'mounted without DAX'
page 'umount /mnt && mount -o dax=always /dev/pmem0 /mnt'
lacks "$(warned /mnt/pool)" 'mounted without DAX'
daxstore mkfs /dev/shm/pool --size 64M
page 'mount -o remount,huge=always /dev/shm'
lacks "$(warned /dev/shm/pool)" 'costs huge pages'
rm /dev/shm/pool
mount -o remount,huge=never /dev/shm

# 4. The translations.
cd /tmp
head -c 33554432 /dev/urandom > file
echo 16384 > /sys/kernel/tracing/buffer_size_kb
echo > /sys/kernel/tracing/trace
echo 1 > /sys/kernel/tracing/tracing_on
page 'echo 1 > /sys/kernel/tracing/events/fs_dax/enable'
page 'daxstore write /mnt/pool /data < file'
huge=$(page 'grep dax_pmd_fault_done /sys/kernel/tracing/trace | grep -vc FALLBACK' || true)
small=$(page 'grep -c dax_pte_fault_done /sys/kernel/tracing/trace' || true)
page 'echo 0 > /sys/kernel/tracing/events/fs_dax/enable'
note "32 MiB written: $huge of 2 MiB, $small of 4 KiB"
[ $huge -ge 16 ] && [ $small = 0 ] || fail "$huge of 2 MiB, $small of 4 KiB"
daxstore cat /mnt/pool /data | cmp - file
rm -f file /mnt/pool
