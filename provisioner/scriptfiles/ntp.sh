#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: ntp
# title: Time
# description: Asks the time servers that machines are told of.
# script_type: testing
# hardware_type: network
# parallel: any
# timeout: 00:01:00
# tags: ntp
# results:
#   offset_ms: {title: "Offset", description: "How far the server's clock is ahead, in milliseconds"}
# --- End MAAS 1.0 script metadata ---
# The work is that of Ingot's agent. On a machine where another program runs scripts, the agent is fetched for it.
set -eu
@fetch-agent@
"$AGENT" hardware-test ntp "$@"
