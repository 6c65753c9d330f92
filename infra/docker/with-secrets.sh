#!/bin/sh
# Each file below /run/secrets whose name is that of an environment variable becomes one; then the command runs.
set -eu
for file in "${SECRETS_FOLDER:-/run/secrets}"/*; do
    name=$(basename "$file")
    case $name in
        *[!A-Z0-9_]*) continue ;; # s3.json, password files, a folder without files
    esac
    export "$name=$(cat "$file")"
done
exec "$@"
