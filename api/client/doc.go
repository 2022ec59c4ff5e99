// Package client is the Go SDK of Ingot's APIs, and of any server that speaks the MAAS 2.0 API.
//
// # Calls
//
// New makes a Client of an address and an API key (consumer:token:secret, as the server hands it out). There is one method for
// each operation, named after it: Client.MachinesAllocate is what MAAS's command line calls `machines allocate`. Each takes a
// context and a struct of parameters from package api, and returns a typed answer. Parameters that may be left out are pointers
// (Ptr makes one) or lists; what is nil is not sent, and a pointer to "" clears a text. Families of keys that no struct can
// name, such as power_parameters_power_address, go into the params' Input.Extra, as does any key that only another version of
// the server knows.
//
//	c, err := client.New(client.Config{URL: "http://maas:5240", APIKey: key})
//	m, err := c.MachinesAllocate(ctx, api.MachinesAllocateParams{Mem: []string{"16384"}})
//
// Deploying, commissioning and releasing take minutes: these calls answer at once, with the machine in a passing status. Read
// the machine until it rests; the first example shows how.
//
// # Errors
//
// An answer that is no success is an *Error with the status and what the server wrote: a text, or messages by field. IsStatus
// asks for a status. A 409 of MachinesAllocate means that no machine matches now. With WithExplanation the region says why, in
// Error.Problem. Errors without an answer (no connection, no trust) are those of net/http.
//
// # Trying again
//
// A call that is answered 503 or 409 with a Retry-After is made again, Config.Retries times. Other failures are not: after a
// lost connection nobody knows whether the call was carried out. WithIdempotencyKey settles that: the same call with the same
// key changes nothing twice, for a day. A MAAS ignores the key.
//
// # Trust
//
// Config.TLS says whom the client trusts and what certificate it shows (mutual TLS). The API key travels with each request
// (OAuth 1.0a, PLAINTEXT), so it is as safe as the connection.
//
// # Without methods
//
// Client.Do makes a call by its description in api.Handlers, with untyped parameters and answer. Command lines and proxies use
// it. Everything in this package is made from the same description: openapi/maas.yaml and openapi/ingot.yaml.
package client
