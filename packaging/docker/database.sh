#!/bin/bash
# Run once by the Postgres image, on an empty database: the server's user, which is no superuser and so can't change what
# is in the ledger, and its database (docs/operations.md).
set -euo pipefail

psql --no-psqlrc --username "${POSTGRES_USER:-postgres}" --dbname postgres --set ON_ERROR_STOP=1 \
  --set password="$PUNCHTRAIL_DATABASE_PASSWORD" <<'SQL'
create role punchtrail_writer nologin;
create role punchtrail_reader nologin;
create role punchtrail login password :'password';
grant punchtrail_writer, punchtrail_reader to punchtrail;
create database punchtrail owner punchtrail encoding 'UTF8' template template0;
SQL
