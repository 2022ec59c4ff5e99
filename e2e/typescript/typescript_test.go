//go:build typescript

package typescript

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
)

func TestGeneratedClient(t *testing.T) {
	e := servertest.New(t)
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc", "tsconfig.json", "program.ts"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "NO_COLOR=1", "CI=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	run("npm", "ci")
	bin := filepath.Join(dir, "node_modules", ".bin")
	for name, path := range map[string]string{"maas": "/MAAS/api/2.0/openapi.yaml", "ingot": "/ingot/v1/openapi.yaml"} {
		a := e.Anon.Get(path)
		if a.Status != http.StatusOK {
			t.Fatalf("%s: %d", path, a.Status)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), a.Body, 0o600); err != nil {
			t.Fatal(err)
		}
		if out := run(filepath.Join(bin, "openapi-typescript"), name+".yaml", "-o", name+".ts"); strings.Contains(out, "⚠") || strings.Contains(strings.ToLower(out), "warn") {
			t.Errorf("%s is not clean:\n%s", path, out)
		}
	}
	run(filepath.Join(bin, "tsc"), "-p", ".")
	id := strings.TrimSpace(run("node", filepath.Join("out", "program.js"), e.URL, e.Admin.Key, e.User.Key))
	var m api.Machine
	a := e.Admin.Get("machines/" + id + "/")
	if a.Status != http.StatusOK {
		t.Fatalf("the machine %q that the program made: %d %s", id, a.Status, a.Text())
	}
	a.Into(t, &m)
	if m.Hostname != "typed" || m.Description != "from TypeScript" {
		t.Errorf("the program made %s, %q", m.Hostname, m.Description)
	}
}
