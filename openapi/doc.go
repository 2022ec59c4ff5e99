// Package openapi holds the documents that describe every HTTP interface of Ingot. They are written by hand; all that is
// generated from them is made by gen (go generate ./openapi). The documents are embedded so that the server can serve them
// and tests can hold it to them. The package knows nothing of how operations are carried out.
package openapi

import _ "embed"

//go:generate go run ./gen -root ..

// MAAS is the document of the MAAS API.
//
//go:embed maas.yaml
var MAAS []byte

// Ingot is the document of what Ingot adds under /ingot/v1/.
//
//go:embed ingot.yaml
var Ingot []byte
