# A media error, injected as the platform lets one be.
. /guest/lib.sh
where_it_is
name=$(ndctl list -N | sed -n 's/.*"dev":"\(namespace[0-9.]*\)".*/\1/p' | head -n 1)
if said=$(ndctl inject-error --block=1000 --count=1 $name 2>&1); then
    ndctl list -M
    ndctl inject-error --uninject --block=1000 --count=1 $name
else
    skip "ndctl inject-error: $(echo "$said" | head -n 1)"
fi
