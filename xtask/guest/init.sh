#!/bin/busybox sh
# The first process of the virtual machine: makes or finds the persistent memory that `vm.backend` names, runs what
# `vm.run` names, and switches off. The host reads the lines that begin with `@@ `.
/bin/busybox --install -s /bin
export PATH=/bin:/sbin
mount -t proc p /proc
mount -t sysfs s /sys
mount -t devtmpfs d /dev
mkdir -p /dev/shm
mount -t tmpfs t /dev/shm
mount -t tmpfs t /tmp
echo
echo "@@ up $(uname -r)"
echo 1 > /proc/sys/kernel/printk
mount -t tracefs t /sys/kernel/tracing

told() { for word in $(cat /proc/cmdline); do case $word in vm.$1=*) echo "${word#*=}" ;; esac; done; }
export BACKEND="$(told backend)" SEED="$(told seed)" PLANT="$(told plant)"
. /guest/lib.sh

prepare > /tmp/prepare 2>&1
code=$?
cat /tmp/prepare
if [ $code != 0 ]; then
    dmesg | tail -5
    echo "@@ failed prepare $(tail -n 1 /tmp/prepare)"
    poweroff -f
fi
for name in $(told run | tr , ' '); do
    echo "@@ begin $name"
    case $name in
        powercut | kvcut)
            sh /guest/$name.sh
            echo "@@ failed $name see the console"
            continue
            ;;
    esac
    sh -eu /guest/$name.sh > /tmp/out 2>&1
    code=$?
    sed 's/^@@/ @@/' /tmp/out
    sed -n "s/^note: /@@ note $name /p" /tmp/out
    case $code in
        0) echo "@@ ok $name" ;;
        77) echo "@@ skipped $name $(tail -n 1 /tmp/out)" ;;
        *) echo "@@ failed $name $(tail -n 1 /tmp/out)" ;;
    esac
done
echo "@@ end"
sync
poweroff -f
