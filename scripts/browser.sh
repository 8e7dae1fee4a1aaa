#!/usr/bin/env bash
# Makes sure that a headless Chromium is there: a test opens the report in it.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Chromium"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update >/dev/null
  apt-get -qq install --yes --no-install-recommends chromium >/dev/null
  exit 0
fi
echo "The test of the report needs Chromium, and none of chromium, chromium-browser, google-chrome is on the PATH." >&2
echo "Install it (Debian, Ubuntu: sudo apt-get install chromium) and run the same command again." >&2
exit 1
