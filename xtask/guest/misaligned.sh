# What the kernel maps at an offset that is not a multiple of the device's alignment: why the store must check it.
. /guest/lib.sh
where_it_is
vm-guest misaligned $POOL
