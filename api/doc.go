// Package api holds what travels between Ingot's parts and its users: the generated types and operation table of the MAAS API,
// the rack's snapshot, and the agent's task. It imports the standard library only, so that every program can afford it.
package api
