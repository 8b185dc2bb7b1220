#!/bin/sh
# Fetches NiiVue's standalone build and the licences of what is built into it from npm, and checks the former.
# `make niivue` runs it; for another version, change the two lines below, and the README's.
set -eu
VERSION=0.52.0
SHA256=a3228f751b10e2e19424ba967f0b4be65673bccb90c4b944e225935d57210700
BUILT_IN="@lukeed/uuid@2.0.1 @ungap/structured-clone@1.2.0 array-equal@1.0.2 gl-matrix@3.4.3 nifti-reader-js@0.8.0 fflate@0.8.2"

here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cd "$room"

unpack() { # what npm has under a name and version, into ./package
    rm -rf package
    tar xzf "$(npm pack --silent "$1")"
}

unpack "@niivue/niivue@$VERSION"
echo "$SHA256  package/dist/niivue.umd.js" | sha256sum --check --quiet
cp package/dist/niivue.umd.js "$here/niivue.umd.js"
: > built-in
for name in $BUILT_IN; do
    unpack "$name"
    licence=$(find package -maxdepth 1 -iname 'licen*' | sort | head -n 1)
    printf '\n---- %s ----\n\n' "$name" >> built-in
    if [ -n "$licence" ]; then cat "$licence" >> built-in; else echo "Licence, as its package.json says: $(node -p 'require("./package/package.json").license')" >> built-in; fi
done
mv built-in "$here/LICENSE.built-in"
