#!/usr/bin/env bash
# Installs Chromium and its driver, with which the tests of the page are run (some 113 MB to fetch). Debian and
# Ubuntu, as root or with sudo; where both are there already, it does nothing.
set -euo pipefail
if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "error: no apt-get here; install chromium and chromedriver with this system's own means" >&2
  exit 2
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  as_root=(sudo -n)
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get -qq update
"${as_root[@]}" apt-get -qq install --yes --no-install-recommends chromium chromium-driver >/dev/null
chromium --version
