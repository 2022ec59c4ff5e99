// Package preseed renders what installers other than Ingot's agent read: curtin's configuration, Subiquity's autoinstall document, and the
// templates by which operators override them. It is pure: what a machine is and is to become goes in as plain structs, documents come out.
// Nothing is pasted: documents are structs that a marshaller writes, and each value that becomes part of a line (an apt source, a debconf
// answer, a word of the shell) passes a function that refuses what would end the line.
package preseed
