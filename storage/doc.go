// Package storage owns the records, every line of SQL, the migrations and the change feed, on SQLite (the default) and on
// PostgreSQL. It knows no rule of the product: what may happen to a record is decided in package provisioner.
package storage
