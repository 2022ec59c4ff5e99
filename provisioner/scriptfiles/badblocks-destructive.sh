#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: badblocks-destructive
# title: Bad blocks, overwriting
# description: Overwrites the whole disk with patterns and reads them. All data is lost.
# script_type: testing
# hardware_type: storage
# parallel: instance
# timeout: 00:00:00
# tags: storage
# destructive: true
# packages: {apt: e2fsprogs}
# results:
#   badblocks: {title: "Bad blocks", description: "Blocks that do not keep what is written to them"}
#   read_errors: {title: "Read errors", description: "Blocks that could not be read"}
#   write_errors: {title: "Write errors", description: "Blocks that could not be written"}
#   comparison_errors: {title: "Comparison errors", description: "Blocks that were read back changed"}
# parameters:
#   storage: {type: storage, argument_format: '{path}'}
# --- End MAAS 1.0 script metadata ---
MODE=-w
@badblocks@
