# The processor reports a broken line of an NVDIMM, which the kernel adds to its list: what is lost is refused, and an
# overwrite repairs it. The report is one of the kernel's injector of machine checks; all behind it is as on hardware.
. /guest/lost.sh
modprobe mce-inject
[ -d /sys/kernel/debug/mce-inject ] || mount -t debugfs d /sys/kernel/debug

# Reports that the memory at the physical address $1 lost a page: uncorrected, of the memory controller, for the
# processors of both makers.
report() {
    cd /sys/kernel/debug/mce-inject
    echo sw > flags
    printf '0x%x\n' $1 > addr
    echo 0x8c > misc
    echo 0xbc00000000080090 > status
    echo 0 > cpu
    echo 4 > bank
    cd /
    waited=0
    until grep -q . /sys/bus/nd/devices/region0/badblocks; do
        [ $waited -lt 50 ] || fail 'the kernel does not list it'
        sleep 0.1
        waited=$((waited + 1))
    done
}

pool_with_a_file
report $(($(cat /sys/bus/dax/devices/dax0.0/resource) + place))
page 'ndctl list -M'
holds "$(ndctl list -M)" '"badblock_count":8'
told
page 'daxstore info POOL'
refused page 'daxstore check POOL'
note "check: $(echo "$said" | grep /data | head -n 1)"
rm -rf DIRECTORY
refused page 'daxstore get POOL / DIRECTORY'
cmp DIRECTORY/whole /tmp/random
refused page 'daxstore check --repair POOL'
# The emulator's NVDIMM has none of the calls behind these two.
unsupported 'ndctl start-scrub'
unsupported 'ndctl clear-errors namespace0.0'
vm-guest lost $POOL $unit U $at
daxstore check $POOL
note 'repaired; the block stays out of use'
holds "$(daxstore info $POOL)" 'BAD MEDIUM'
rm -rf DIRECTORY
