// Package bootsrv is the rack controller: it keeps the region's snapshot, serves DHCP, TFTP and HTTP from it, drives BMCs for
// the region, and reports what it saw. It owns the link to the region, the snapshot on disk, the cache of boot content, the
// spool of reports and the executor of jobs; the protocols are in the packages below it.
//
// It knows nothing of the rules or the database: the region is an HTTP server to it, over mutual TLS or, inside one process,
// over an http.RoundTripper that calls the region's handler.
package bootsrv
