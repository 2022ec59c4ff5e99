// Package agent is what ingot-agent does on a machine that is being enlisted, commissioned, installed or erased: it takes stock of
// the hardware, carries out one task from the metadata service, and reports in MAAS's own words. It runs as init of the light
// initramfs (Init) or as a program that cloud-init starts in a full system (Run). Linux only.
//
// The most important line of this package: no disk is written that the plan does not name, exactly once, by serial or path and by
// size (see verifyTargets); every function that writes takes a target, and only verifyTargets makes one.
//
// It does not know the region's rules, its storage or its API beyond what a machine may ask; it imports package api alone.
package agent
