// Package rules holds the tests of how the code is laid out: who may import whom, and why.
package rules
