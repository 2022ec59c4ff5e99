#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: smartctl-long
# title: Storage self-test, long
# description: Has the drive read all of itself; takes hours.
# script_type: testing
# hardware_type: storage
# parallel: instance
# timeout: 00:00:00
# tags: storage
# packages: {apt: smartmontools}
# parameters:
#   storage: {type: storage, argument_format: '{path}'}
# --- End MAAS 1.0 script metadata ---
@smart@
TEST=long
@selftest@
