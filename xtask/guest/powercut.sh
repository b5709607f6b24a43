# Opens the pool, tells what is in it, and writes until the power is cut.
. /guest/lib.sh
where_it_is
exec vm-guest cut $POOL 128 $SEED $PLANT
