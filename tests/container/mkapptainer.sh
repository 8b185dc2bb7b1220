#!/usr/bin/env bash
# mkapptainer.sh NAME: an image that holds Apptainer. Only Debian unstable has it as a package, and that one needs a
# newer C library than a stable host's.
set -euo pipefail
. "$(dirname "$0")/debian.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debian_root "$work/root.tar" sid apptainer,ca-certificates,fakeroot,fuse-overlayfs,squashfs-tools,squashfuse
podman import "$work/root.tar" "$1"
