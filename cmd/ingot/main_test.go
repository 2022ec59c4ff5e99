package main

import (
	"bytes"
	"strings"
	"testing"
)

// The commands of the server and those of the API stand side by side, and mistakes of the caller have an exit status of their own.
func TestRun(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for line, want := range map[string]struct {
		status int
		text   string
	}{
		"--help":                                 {0, "machines "},
		"region --help":                          {0, "--rack-link"},
		"version":                                {0, "ingot "},
		"machine deploy --help":                  {0, "--distro-series"},
		"machine read":                           {2, "SYSTEM_ID is missing"},
		"machines list":                          {2, "ingot login NAME URL KEY"},
		"machines list --what":                   {2, "unknown flag"},
		"nonsense":                               {1, "unknown command"},
		"zones list --server http://127.0.0.1:1": {1, "connection refused"},
	} {
		var out bytes.Buffer
		if got := run(strings.Fields(line), &out, &out); got != want.status || !strings.Contains(out.String(), want.text) {
			t.Errorf("ingot %s: %d, want %d and %q:\n%s", line, got, want.status, want.text, out.String())
		}
	}
}
