#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: gateway-connectivity
# title: Gateway connectivity
# description: Pings the gateway of each configured interface.
# script_type: testing
# hardware_type: network
# parallel: instance
# timeout: 00:05:00
# tags: network-validation
# apply_configured_networking: true
# parameters:
#   interface: {type: interface}
# --- End MAAS 1.0 script metadata ---
# The work is that of Ingot's agent. On a machine where another program runs scripts, the agent is fetched for it.
set -eu
@fetch-agent@
"$AGENT" hardware-test gateway-connectivity "$@"
