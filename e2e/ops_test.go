package e2e

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
)

func releaseErase(id string) api.MachineReleaseParams {
	return api.MachineReleaseParams{SystemID: id, Erase: ptr(true), QuickErase: ptr(true)}
}

func (s *site) abort(id string) {
	s.t.Helper()
	if _, err := s.client.MachineAbort(s.t.Context(), api.MachineAbortParams{SystemID: id}); err != nil {
		s.t.Fatal(err)
	}
}

// command runs ingot to its end.
func command(t *testing.T, args ...string) string {
	t.Helper()
	return commandInput(t, "", args...)
}

func commandInput(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	bin, err := ingotBinary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("ingot %v: %v\n%s%s", args, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.String()
}
