#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: internet-connectivity
# title: Internet connectivity
# description: Fetches or pings addresses through each configured interface.
# script_type: testing
# hardware_type: network
# parallel: instance
# timeout: 00:05:00
# tags: internet, network-validation
# apply_configured_networking: true
# parameters:
#   interface: {type: interface}
#   url: {type: url, description: 'Addresses to fetch (http, https) or to ping (icmp, or a name alone)', default: 'https://connectivity-check.ubuntu.com', allow_list: true}
# --- End MAAS 1.0 script metadata ---
# The work is that of Ingot's agent. On a machine where another program runs scripts, the agent is fetched for it.
set -eu
@fetch-agent@
"$AGENT" hardware-test internet-connectivity "$@"
