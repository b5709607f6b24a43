# Somebody who is not root uses a devdax device that was given to a group.
. /guest/lib.sh
where_it_is
echo 'root:x:0:0::/:/bin/sh' > /etc/passwd
echo 'user:x:1000:1000::/:/bin/sh' >> /etc/passwd
printf 'root:x:0:\ndax:x:2000:user\n' > /etc/group
as_user() { su -s /bin/sh user -c "$*"; }
refused as_user daxstore mkfs $POOL --size 64M --force
note "before: ${said#daxstore: }"
chown root:dax $POOL
chmod 660 $POOL
as_user daxstore mkfs $POOL --size 64M --force
echo hello | as_user daxstore write $POOL /note
[ "$(as_user daxstore cat $POOL /note)" = hello ]
chown root:root $POOL
chmod 600 $POOL
