#!/bin/sh
# Run a command beside a small Ceph that speaks S3: sh benchmarks/ceph.sh make s3
# Debian: apt-get install --no-install-recommends ceph-mon ceph-osd radosgw
# One monitor, one disk in memory and a gateway, on loopback and without keys; all end with the command.
set -eu

DIR=$(mktemp -d)
export CEPH_CONF="$DIR/ceph.conf"
export AWS_ACCESS_KEY_ID=user AWS_SECRET_ACCESS_KEY=secret S3_ENDPOINT=http://127.0.0.1:7480
cat > "$CEPH_CONF" << EOF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon_host = 127.0.0.1:6789
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
keyring = $DIR/keyring
mon_data = $DIR/mon
osd_data = $DIR/osd
rgw_data = $DIR/rgw
run_dir = $DIR
log_file = $DIR/\$name.log
osd_objectstore = memstore
osd_pool_default_size = 1
osd_pool_default_pg_num = 1
osd_crush_chooseleaf_type = 0
rgw_frontends = beast endpoint=127.0.0.1:7480
EOF

PIDS=
stop() {
  for pid in $PIDS; do kill "$pid" 2> /dev/null || :; done
  for pid in $PIDS; do wait "$pid" 2> /dev/null || :; done
  rm -rf "$DIR"
}
trap stop EXIT
trap 'exit 1' INT TERM

begin() { # none of them as a daemon, so that its number is known
  "$@" > "$DIR/out" 2>&1 &
  PIDS="$! $PIDS"
}

mkdir "$DIR/mon" "$DIR/osd" "$DIR/rgw"
ceph-authtool --create-keyring "$DIR/keyring" --gen-key -n mon. --cap mon 'allow *' > /dev/null
ceph-mon --mkfs -i a
begin ceph-mon -f -i a
DISK=$(cat /proc/sys/kernel/random/uuid)
timeout 60 ceph osd new "$DISK" > /dev/null
ceph-osd --mkfs -i 0 --osd-uuid "$DISK" 2> /dev/null
begin ceph-osd -f -i 0
timeout 60 radosgw-admin user create --uid user --display-name user \
  --access-key "$AWS_ACCESS_KEY_ID" --secret-key "$AWS_SECRET_ACCESS_KEY" > /dev/null
begin radosgw -f -n client.rgw
timeout 60 sh -c "until curl -sf $S3_ENDPOINT > /dev/null; do sleep .2; done"
"$@"
