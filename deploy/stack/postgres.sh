# What the entry point of the image `postgres` does with a new volume, and then: run the server.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" \
    --auth-local=trust --auth-host=scram-sha-256
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl --pgdata="$PGDATA" --wait --options="-c listen_addresses= -k /var/run/postgresql" start
  sql="psql --host=/var/run/postgresql --username=$POSTGRES_USER --no-psqlrc -v ON_ERROR_STOP=1"
  echo "CREATE DATABASE $POSTGRES_DB" | $sql --dbname=postgres
  for file in /docker-entrypoint-initdb.d/*.sql; do
    $sql --dbname="$POSTGRES_DB" --file="$file"
  done
  pg_ctl --pgdata="$PGDATA" --wait --mode=fast stop
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -k /var/run/postgresql "$@"
