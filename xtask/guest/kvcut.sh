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
if daxstore stat $POOL /records > /dev/null 2>&1; then
    daxstore kv $records verify || ended 'the database is not what it should be'
    daxstore kv $records scan > /tmp/listing || ended 'no listing'
fi
vm-guest records-found $SEED < /tmp/listing > /tmp/found || ended "$(cat /tmp/found)"
cat /tmp/found
count=$(cut -d ' ' -f 4 /tmp/found)
echo '@@ writing'
vm-guest records-lines $SEED $count | daxstore kv $records put --stdin --ack | vm-guest records-acknowledged $SEED $count
