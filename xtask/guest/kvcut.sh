# Opens the pool, tells which records are in its key-value store, and puts more until the power is cut.
. /guest/lib.sh
where_it_is
daxstore kv --help > /dev/null 2>&1 || { echo '@@ skipped kvcut this build has no key-value store'; exit; }
ended() { echo "@@ failed kvcut $*"; exit 1; }
records=$POOL:/records
# Where no pool is, nothing was acknowledged, or else the host misses it.
daxstore info $POOL > /dev/null 2>&1 || daxstore mkfs $POOL --size 128M --force || ended 'no pool'
daxstore check $POOL || ended 'the check found something'
: > /tmp/listing
if daxstore kv $records verify > /tmp/verify 2>&1; then
    daxstore kv $records scan > /tmp/listing || ended 'no listing'
else
    # The file is made before the database in it. What was acknowledged in one that is gone, the host misses.
    grep -q 'no database at that path' /tmp/verify || { cat /tmp/verify; ended 'the database is not what it should be'; }
fi
vm-guest records-found $SEED < /tmp/listing > /tmp/found || ended "$(cat /tmp/found)"
cat /tmp/found
count=$(cut -d ' ' -f 4 /tmp/found)
echo '@@ writing'
vm-guest records-lines $SEED $count | daxstore kv $records put --stdin --ack | vm-guest records-acknowledged $SEED $count
