#!/bin/sh
# Find or install the system's Chromium and the fonts that the page's scripts need.
set -eu
have_fonts() { fc-list :lang=th family 2>/dev/null | grep -q . && fc-list :lang=zh family | grep -q . && fc-list :lang=hi family | grep -q .; }
if command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1; then
    have_fonts && exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium fonts-noto-core fonts-noto-cjk fontconfig >/dev/null
    exit 0
fi
if command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1; then
    echo "Fonts for Thai, Chinese or Hindi are missing; screenshots will show boxes. Install Noto fonts."
    exit 0
fi
echo "The browser tests need Chromium: install it with your system's packages" >&2
echo "(Debian, Ubuntu: sudo apt-get install chromium fonts-noto-core fonts-noto-cjk; macOS: brew install --cask chromium)." >&2
exit 1
