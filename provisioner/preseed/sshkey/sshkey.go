// Package sshkey writes users' public SSH keys as installed systems want them. A key here is one line "type base64 [comment]" and
// nothing else: whatever could make a second line, an option or syntax of it in the file that it goes into is refused or left out.
package sshkey

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
	"unicode"
)

// types are the kinds of keys that OpenSSH lets in. Certificates are not among them: they end, and say who may log in where.
var types = []string{
	"ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "sk-ssh-ed25519@openssh.com",
	"sk-ecdsa-sha2-nistp256@openssh.com", "ssh-dss",
}

// maxLine bounds a line; the longest real keys have some three thousand bytes.
const maxLine = 16 << 10

// Clean takes a line apart and writes it again. ok is false for what is not a public key, options in front of one included
// (command="…", from="…"): a machine's file has room for its owner's keys, not for rules about their use. Of the comment only what is
// printable stays: Python, and so Anaconda, cloud-init and cloudbase-init, ends lines at characters that are no control characters to
// others, such as U+2028.
func Clean(line string) (key string, ok bool) {
	if len(line) > maxLine || strings.ContainsAny(line, "\x00\r\n") {
		return "", false
	}
	fields := strings.Fields(line)
	if len(fields) < 2 || !slices.Contains(types, fields[0]) {
		return "", false
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil || !names(blob, fields[0]) {
		return "", false
	}
	out := fields[:2]
	for _, word := range fields[2:] {
		word = strings.Map(func(r rune) rune {
			if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
				return -1
			}
			return r
		}, word)
		if word != "" {
			out = append(out, word)
		}
	}
	return strings.Join(out, " "), true
}

// names says whether a key's blob begins with the name of its type, as SSH's wire format has it.
func names(blob []byte, typ string) bool {
	if len(blob) < 4 {
		return false
	}
	n := binary.BigEndian.Uint32(blob)
	return uint64(n) == uint64(len(typ)) && len(blob) > 4+len(typ) && string(blob[4:4+len(typ)]) == typ
}

// Lines are the keys of a list that can be written, each once, in the list's order.
func Lines(keys []string) []string {
	out := make([]string, 0, len(keys))
	for _, k := range keys {
		if c, ok := Clean(k); ok && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// AuthorizedKeys is the content of an OpenSSH authorized_keys file, empty for no keys.
func AuthorizedKeys(keys []string) string { return file(keys, "\n") }

// AdministratorsAuthorizedKeys is the content of administrators_authorized_keys, which OpenSSH on Windows reads for the members of the
// Administrators group. Its access list must name the system and the administrators only, or OpenSSH does not read it.
func AdministratorsAuthorizedKeys(keys []string) string { return file(keys, "\r\n") }

func file(keys []string, end string) string {
	var b strings.Builder
	for _, l := range Lines(keys) {
		b.WriteString(l + end)
	}
	return b.String()
}
