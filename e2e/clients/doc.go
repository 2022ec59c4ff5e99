// Package clients proves Ingot with clients that others wrote: canonical/gomaasclient (Terraform's) and juju/gomaasapi (Juju's).
// It is a module of its own so that the product never depends on them, and it reaches Ingot over the wire only.
package clients
