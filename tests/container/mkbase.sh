#!/usr/bin/env bash
# mkbase.sh NAME: a stand-in for python:3.11-slim-bookworm from Debian's packages alone, for machines that
# reach no image registry. pip in it trusts the host's certificates and looks for wheels in /wheels.
set -euo pipefail
. "$(dirname "$0")/debian.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -L /etc/ssl/certs/ca-certificates.crt "$work/ca.crt"
printf '[global]\ncert = /etc/ssl/certs/host.crt\nfind-links = /wheels\n' > "$work/pip.conf"
debian_root "$work/root.tar" bookworm ca-certificates,python3,python3-pip,python3-venv \
  --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED; mkdir "$1/wheels"' \
  --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python3"' \
  --customize-hook="upload $work/ca.crt /etc/ssl/certs/host.crt" \
  --customize-hook="upload $work/pip.conf /etc/pip.conf"
podman import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' "$work/root.tar" "$1"
