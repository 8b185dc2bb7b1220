# Sourced by the scripts beside it.

# debian_root TARBALL SUITE PACKAGES [mmdebstrap options]: a minimal Debian with these packages, from the host's mirror.
# A frozen mirror's lists look expired: their dates are not checked (their signatures are).
debian_root() {
  local tarball=$1 suite=$2 packages=$3
  shift 3
  local mirror
  mirror=$(awk '/^URIs:/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)
  mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
    --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' "$@" "$suite" "$tarball" \
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} $suite main"
}
