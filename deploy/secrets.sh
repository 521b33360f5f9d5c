# Makes ./secrets with the password of Postgres, once: sh deploy/secrets.sh
# The folder is closed to other users of this machine. Its files are open, because each container has
# a user of its own and mounts the files that it needs, not the folder.
set -eu
umask 077
mkdir secrets
mkdir -m 755 secrets/pipeline
password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
umask 022
printf '%s' "$password" > secrets/postgres_password
# The same for libpq, through which Dagster and MLflow connect.
printf '[cxr]\npassword=%s\n' "$password" > secrets/postgres_service
