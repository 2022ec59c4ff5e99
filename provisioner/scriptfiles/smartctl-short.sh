#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: smartctl-short
# title: Storage self-test, short
# description: Has the drive test itself for some minutes.
# script_type: testing
# hardware_type: storage
# parallel: instance
# timeout: 00:10:00
# tags: storage
# packages: {apt: smartmontools}
# parameters:
#   storage: {type: storage, argument_format: '{path}'}
# --- End MAAS 1.0 script metadata ---
@smart@
TEST=short
@selftest@
