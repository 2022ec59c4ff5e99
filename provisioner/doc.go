// Package provisioner is the rules of Ingot: the life of a machine and its transitions, allocation, addresses, images, users and
// events. Each rule is a method of Service: it takes the actor from the context, checks what it may do, and changes the store in
// one transaction. The package knows records and SQL only through package storage, and nothing of HTTP or of how a rack speaks to
// machines.
package provisioner
