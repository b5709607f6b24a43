# What the guest's scripts share.

MIB=1048576

# Ends a scenario: it did not do what it should; it can not be tried here.
fail() { echo "$*"; exit 1; }
skip() { echo "$*"; exit 77; }
# A line for the report.
note() { echo "note: $*"; }

# Runs a command that must be refused (exit code 1), and keeps what it said in $said.
refused() {
    set +e
    said=$("$@" 2>&1)
    code=$?
    set -e
    [ $code = 1 ] || fail "exit code $code, not 1: $*: $said"
}

# Runs a command of the guide, word for word but for the pool's name: docs/deploy.md must have it.
page() {
    grep -q -F -- "$1" /guest/deploy.md || { echo "docs/deploy.md does not have: $1"; exit 2; }
    eval "$(echo "$1" | sed "s|POOL|$POOL|")"
}
# As that, where the kernel or the tool can not do it here; what it said is shown.
unsupported() {
    if said=$(page "$1" 2>&1); then fail "it works: $1"; fi
    note "$1: $(echo "$said" | grep -v '^$' | head -n 1)"
}

# Fails unless $1 holds $2.
holds() { case $1 in *"$2"*) ;; *) echo "$1"; fail "not found: $2" ;; esac; }
lacks() { case $1 in *"$2"*) echo "$1"; fail "found: $2" ;; esac; }

# The text of the warnings about the pool $1.
warned() { daxstore info "$1" | sed -n '/^WARNING/,$p'; }

# Makes the namespace that there is into one of mode $1 with alignment $2.
namespace() {
    name=$(ndctl list -N -i | sed -n 's/.*"dev":"\(namespace[0-9.]*\)".*/\1/p' | head -n 1)
    ndctl create-namespace -f -e "$name" -m $1 -a $2
}

# As that, once: a namespace that is gone after a power cut is a loss, and no reason to make another. The disk keeps the
# note of it.
once() {
    [ ! -e /disk/namespace ] || { echo 'the namespace is gone'; return 1; }
    namespace $1 $2 && touch /disk/namespace && sync
}

# The file system with DAX, made once too.
mount_dax() {
    [ -e /disk/made ] || { make_fs && touch /disk/made && sync; }
    mount -t $BACKEND -o dax=always $BLOCK /mnt
}

make_fs() {
    case $BACKEND in
        xfs) mkfs.xfs -q -f -d su=2m,sw=1 $BLOCK ;;
        ext4) mkfs.ext4 -q -F -b 4096 -E stride=512,stripe_width=512 $BLOCK ;;
    esac
}

block_device() { ls /dev/pmem* 2> /dev/null; }
dax_device() { ls /dev/dax* 2> /dev/null; }
# The node of a device is there before its driver has made it ready.
any_device() { block_device || true < "$(dax_device)"; }

# Waits until the command line $* succeeds, 10 s at most.
until_true() {
    waited=0
    until "$@" > /dev/null 2>&1; do
        [ $waited -lt 100 ] || return 1
        sleep 0.1
        waited=$((waited + 1))
    done
}

# The kernel finds CXL memory.
cxl_memory() {
    for module in cxl_acpi cxl_pci cxl_port cxl_mem cxl_pmem kmem; do modprobe $module; done
    until_true [ -e /sys/bus/cxl/devices/decoder2.0 ] || { echo 'no CXL memory'; return 1; }
}

# Makes a region of it, at the second boot the one that there was: the labels of its namespace have its name.
cxl_region() {
    ln -sf /disk/region /etc/region0.uuid
    if [ -e /disk/region ]; then
        cxl_region_again
        return
    fi
    page 'cxl create-region -m -t pmem -d decoder0.0 mem0' || return 1
    page 'cat /sys/bus/cxl/devices/region0/uuid > /etc/region0.uuid'
    case $BACKEND in
        devdax-*) page 'ndctl create-namespace -m devdax -a 2M' || return 1 ;;
        *) ndctl create-namespace -m fsdax -a 2M || return 1 ;;
    esac
    touch /disk/namespace
    sync
}

cxl_region_again() {
    page 'cd /sys/bus/cxl/devices'
    page 'cat decoder0.0/create_pmem_region > decoder0.0/create_pmem_region'
    page 'cat /etc/region0.uuid > region0/uuid'
    page 'echo 1 > region0/interleave_ways'
    page 'echo 256 > region0/interleave_granularity'
    page 'echo 0x30000000 > region0/size'
    page 'echo pmem > decoder2.0/mode'
    page 'echo 0x30000000 > decoder2.0/dpa_size'
    page 'echo decoder2.0 > region0/target0'
    page 'echo 1 > region0/commit'
    page 'echo region0 > /sys/bus/cxl/drivers/cxl_region/bind'
    cd /
}

# Loads what the backend needs and brings it to where $POOL can be made. After a reset it finds what there was.
prepare() {
    for module in crc32c_generic crc32c_intel virtio_pci virtio_blk ext4; do modprobe $module; done
    mount -t ext4 /dev/vda /disk
    [ "$BACKEND" = plain ] && return
    for module in libnvdimm nd_pmem device_dax dax_pmem; do modprobe $module; done
    case $(told memory) in
        # The guide makes the region, except where a power cut follows.
        cxl)
            cxl_memory || return 1
            case $(told run) in cxl) return 0 ;; esac
            cxl_region || return 1
            ;;
        nfit) modprobe nfit ;;
        *) modprobe nd_e820 ;;
    esac
    # The kernel looks at the memory while others go on.
    until_true any_device
    case $BACKEND in
        xfs | ext4)
            modprobe $BACKEND
            # Memory that no namespace was made of is a block device too.
            case $(readlink -f /sys/block/pmem0) in */pfn*) ;; *) once fsdax 2M || return 1 ;; esac
            BLOCK=$(block_device)
            mount_dax
            ;;
        devdax-2m) dax_device || once devdax 2M ;;
        devdax-4k) dax_device || once devdax 4k ;;
    esac
}

# Where the pool goes, and how large a pool fits the device too.
where_it_is() {
    BLOCK=$(block_device || true)
    case $BACKEND in
        plain) POOL=/disk/pool ;;
        devdax-*) POOL=$(dax_device) ;;
        *) POOL=/mnt/pool ;;
    esac
}
