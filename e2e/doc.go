// Package e2e holds the tests of the whole system: the real binary, started, killed and stopped as a process, with lab machines
// and hostile clients at its ports. It knows the system by its commands, its API and its network ports only. Its one helper that
// is not a test, bench, measures what users feel: start, memory, lists and allocations.
package e2e
