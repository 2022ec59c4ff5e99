package sshkey

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

const ed = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		ed:                                  ed,
		"  " + ed + "\tann@desk ":           ed + " ann@desk",
		ed + " Ann   B  désk":               ed + " Ann B désk",
		ed + " a\u2028ssh-ed25519 b":        ed + " a ssh-ed25519 b",
		ed + " a\u0085b\u2029c\x1cd\u200de": ed + " a b cde",
		ed + " \x7f":                        ed,
		ed + ` '; reboot; "%end`:            ed + ` '; reboot; "%end`, // quoting is the emitters' affair
	} {
		got, ok := Clean(in)
		if !ok || got != want {
			t.Errorf("Clean(%q) = %q, %v; want %q", in, got, ok, want)
		}
		if _, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(got + "\n")); err != nil || len(rest) > 0 {
			t.Errorf("OpenSSH's format does not read %q: %v", got, err)
		}
	}
	for name, in := range map[string]string{
		"empty": "", "one word": "ssh-ed25519", "options": `command="reboot" ` + ed, "flag": "restrict " + ed, "newline": ed + "\n" + ed,
		"carriage return": ed + " x\r" + ed, "nul": ed + " a\x00b", "not base64": "ssh-ed25519 !!!!", "another type inside": "ssh-rsa " + strings.Fields(ed)[1],
		"type alone": "ssh-rsa AAAAB3NzaC1yc2E=", "certificate": strings.Replace(ed, "ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com", 1),
		"too long": ed + " " + strings.Repeat("x", maxLine), "private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
	} {
		if got, ok := Clean(in); ok {
			t.Errorf("%s: taken as %q", name, got)
		}
	}
}

func TestFiles(t *testing.T) {
	keys := []string{ed + " a", `no-pty ` + ed, ed + " a", ed + " b"}
	if got, want := AuthorizedKeys(keys), ed+" a\n"+ed+" b\n"; got != want {
		t.Errorf("authorized_keys is %q, want %q", got, want)
	}
	if got, want := AdministratorsAuthorizedKeys(keys), ed+" a\r\n"+ed+" b\r\n"; got != want {
		t.Errorf("administrators_authorized_keys is %q, want %q", got, want)
	}
	if got := AuthorizedKeys(nil); got != "" {
		t.Errorf("no keys make %q", got)
	}
}

func FuzzClean(f *testing.F) {
	f.Add(ed + " comment")
	f.Add(`command="x" ` + ed)
	f.Fuzz(func(t *testing.T, line string) {
		got, ok := Clean(line)
		if !ok {
			return
		}
		if strings.ContainsAny(got, "\n\r\x00\v\f\u0085\u2028\u2029") {
			t.Fatalf("%q has a line end", got)
		}
		if again, ok := Clean(got); !ok || again != got {
			t.Fatalf("Clean(Clean(%q)) = %q, %v", got, again, ok)
		}
	})
}
