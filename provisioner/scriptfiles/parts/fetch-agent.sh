# The agent, from the rack, for a runner that is not the agent.
case "$(uname -m)" in x86_64) ARCH=amd64 ;; aarch64) ARCH=arm64 ;; *) ARCH="$(uname -m)" ;; esac
AGENT="$(mktemp)"
trap 'rm -f "$AGENT"' EXIT
URL="$MAAS_BASE_URL/machine-resources/$ARCH/ingot-agent"
if command -v curl >/dev/null 2>&1; then
    curl -fsS --noproxy '*' -o "$AGENT" "$URL"
else
    wget -q --no-proxy -O "$AGENT" "$URL"
fi
chmod 0700 "$AGENT"
