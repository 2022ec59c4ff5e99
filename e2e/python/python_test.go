//go:build python

package python

import (
	"bytes"
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
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc", "program.py"} {
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
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
		cmd.Env = append(os.Environ(), "CI=1", "PYTHONPATH="+filepath.Join(dir, "maas-client")+":"+filepath.Join(dir, "ingot-client"))
		if err := cmd.Run(); err != nil {
			out := stdout.String() + stderr.String()
			t.Fatalf("%s %v: %v\n%s", name, args, err, out[max(0, len(out)-4000):])
		}
		return stdout.String()
	}
	run("npm", "ci")
	jar := filepath.Join("node_modules", "@openapitools", "openapi-generator-cli", "bin", "openapi-generator.jar")
	for name, path := range map[string]string{"maas": "/MAAS/api/2.0/openapi.yaml", "ingot": "/ingot/v1/openapi.yaml"} {
		a := e.Anon.Get(path)
		if a.Status != http.StatusOK {
			t.Fatalf("%s: %d", path, a.Status)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), a.Body, 0o600); err != nil {
			t.Fatal(err)
		}
		// The document is validated before; what does not fit the specification ends the run.
		run("java", "-jar", jar, "generate", "-i", name+".yaml", "-g", "python", "--package-name", name, "-o", name+"-client")
		run("python3", "-W", "error", "-m", "compileall", "-q", filepath.Join(name+"-client", name))
	}
	id := strings.TrimSpace(run("python3", "program.py", e.URL, e.Admin.Key, e.User.Key))
	var m api.Machine
	a := e.Admin.Get("machines/" + id + "/")
	if a.Status != http.StatusOK {
		t.Fatalf("the machine %q that the program made: %d %s", id, a.Status, a.Text())
	}
	a.Into(t, &m)
	if m.Hostname != "typed" || m.Description != "from Python" {
		t.Errorf("the program made %s, %q", m.Hostname, m.Description)
	}
}
