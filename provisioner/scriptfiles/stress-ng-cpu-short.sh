#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: stress-ng-cpu-short
# title: Processors for five minutes
# description: Keeps all processors computing for five minutes and compares the results.
# script_type: testing
# hardware_type: cpu
# parallel: disabled
# timeout: 00:06:00
# tags: cpu
# results:
#   rounds: {title: "Rounds", description: "Computations"}
#   wrong: {title: "Wrong", description: "Computations with another result than the first"}
# parameters:
#   runtime: {type: runtime, min: 1, default: 330}
# --- End MAAS 1.0 script metadata ---
# The work is that of Ingot's agent. On a machine where another program runs scripts, the agent is fetched for it.
set -eu
@fetch-agent@
"$AGENT" hardware-test stress-ng-cpu-short "$@"
