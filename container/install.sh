#!/bin/sh
# Installs the program into a virtual environment of its own: /opt/bids-wmh-uad.
# Dockerfile and Singularity.def both run this, so that both images hold the same files.
# Usage: install.sh packages|program SOURCE     with TORCH, TORCH_INDEX and VERSION in the environment
set -eu
app=${APP:-/opt/bids-wmh-uad}
source=$2
pip="$app/bin/python -m pip --disable-pip-version-check --no-cache-dir"

case $1 in
packages)
  python3 -m venv "$app"
  $pip install --no-deps --require-hashes -r "$source/container/requirements.txt"
  # its own requirements but those of a GPU build are there already
  $pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$TORCH"
  # headers and test suites: nothing imports them at run time
  site=$("$app/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  rm -rf "$site/torch/include" "$site/torch/test" "$site/pandas/tests" "$site/nitransforms/tests"
  ;;
program)
  SETUPTOOLS_SCM_PRETEND_VERSION=$VERSION $pip install --no-deps "$source"
  # complete, but for deepbet's window: container/lock.py leaves its toolkit out
  $pip check > "$app/check.txt" || true
  if grep -vE '^deepbet .* requires customtkinter, which is not installed|^No broken requirements' "$app/check.txt"; then exit 1; fi
  rm "$app/check.txt"
  ;;
esac
