#!/bin/bash
# The image's health check: whether the server in this container can serve, by its /readyz. By the shell alone: the image
# holds no client. A server that speaks TLS itself is only asked whether it listens.
set -euo pipefail

port=${PUNCHTRAIL_LISTEN##*:}
exec 3<>"/dev/tcp/127.0.0.1/$port"
[ -z "${PUNCHTRAIL_TLS_CERT:-}" ] || exit 0
printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
IFS= read -r -t 5 status <&3
echo "$status"
[[ "$status" == "HTTP/1.1 200 "* ]]
