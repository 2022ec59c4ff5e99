#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: smartctl-conveyance
# title: Storage self-test, conveyance
# description: Has the drive look for damage from transport.
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
TEST=conveyance
@selftest@
