# `info` warns of what costs huge pages or durability.
. /guest/lib.sh
where_it_is
skip "no warnings yet"
