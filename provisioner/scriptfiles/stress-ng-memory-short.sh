#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: stress-ng-memory-short
# title: Memory for five minutes
# description: Writes patterns to all free memory and reads them, for five minutes.
# script_type: testing
# hardware_type: memory
# parallel: disabled
# timeout: 00:06:00
# tags: memory
# results:
#   tested_mib: {title: "Tested", description: "MiB of memory"}
#   passes: {title: "Passes", description: "How often all of it was tested"}
#   errors: {title: "Errors", description: "Words that did not keep what was written to them"}
# parameters:
#   runtime: {type: runtime, min: 1, default: 330}
# --- End MAAS 1.0 script metadata ---
# The work is that of Ingot's agent. On a machine where another program runs scripts, the agent is fetched for it.
set -eu
@fetch-agent@
"$AGENT" hardware-test stress-ng-memory-short "$@"
