// Package juju proves Ingot with Juju's own MAAS provider, the code that runs in a Juju controller. It is a module of its own, because
// Juju's dependencies are many and old; it reaches Ingot over the wire only.
package juju
