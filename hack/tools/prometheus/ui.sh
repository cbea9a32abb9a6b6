#!/usr/bin/env bash
# Builds the pages of the Prometheus that this module names, of the sources in its module, into $1/static. It needs node
# and npm.
set -euo pipefail
into=$(realpath --canonicalize-missing "$1")
cd "$(dirname "$0")"
module=github.com/prometheus/prometheus
go mod download "$module"
rm -rf "$into" && mkdir -p "$(dirname "$into")"
cp -r "$(go list -m -f '{{.Dir}}' "$module")/web/ui" "$into" && chmod -R u+w "$into"
cd "$into"
# The version that they name of one of these packages isn't served everywhere.
sed -i -E 's|("@mantine/[a-z-]+": )"\^9\.7\.2"|\1"9.6.2"|' mantine-ui/package.json
npm install --silent --prefix pnpm pnpm@10
export PATH=$PWD/pnpm/node_modules/.bin:$PATH CI=true
pnpm install --no-frozen-lockfile
pnpm run build:mantine-ui
