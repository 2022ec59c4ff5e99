// Package generated is what the tests of generated clients have in common, whatever their language: a server, a folder with the program and
// what it needs, the documents as the server publishes them, and a look at what the program did.
package generated

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

// Project is a folder in which a client is generated and used against a server.
type Project struct {
	t   *testing.T
	e   *servertest.Env
	env []string
	// Dir is the folder.
	Dir string
}

// New starts a server and copies the named files of the test's own folder. More environment is in the form NAME=VALUE; DIR in it is the folder.
func New(t *testing.T, files []string, env ...string) *Project {
	t.Helper()
	p := &Project{t: t, e: servertest.New(t), Dir: t.TempDir()}
	p.env = append(os.Environ(), "CI=1", "NO_COLOR=1")
	for _, v := range env {
		p.env = append(p.env, strings.ReplaceAll(v, "DIR", p.Dir))
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		p.write(name, b)
	}
	return p
}

func (p *Project) write(name string, b []byte) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.Dir, name), b, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// Run runs a program in the folder and returns what it printed. The test ends when it fails.
func (p *Project) Run(name string, args ...string) (stdout, stderr string) {
	p.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(p.t.Context(), name, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.Dir, p.env, &out, &errs
	if err := cmd.Run(); err != nil {
		all := out.String() + errs.String()
		p.t.Fatalf("%s %v: %v\n%s", name, args, err, all[max(0, len(all)-4000):])
	}
	return out.String(), errs.String()
}

// Documents writes each published document as NAME.yaml and calls generate with its name: maas, ingot.
func (p *Project) Documents(generate func(name string)) {
	p.t.Helper()
	for name, path := range map[string]string{"maas": "/MAAS/api/2.0/openapi.yaml", "ingot": "/ingot/v1/openapi.yaml"} {
		a := p.e.Anon.Get(path)
		if a.Status != http.StatusOK {
			p.t.Fatalf("%s: %d", path, a.Status)
		}
		p.write(name+".yaml", a.Body)
		generate(name)
	}
}

// Use runs the program with the server's URL and the keys of an administrator and a user, and holds the server to it: the machine whose id the
// program prints has the host name typed and this description.
func (p *Project) Use(description, program string, args ...string) {
	p.t.Helper()
	out, _ := p.Run(program, append(args, p.e.URL, p.e.Admin.Key, p.e.User.Key)...)
	id := strings.TrimSpace(out)
	var m api.Machine
	a := p.e.Admin.Get("machines/" + id + "/")
	if a.Status != http.StatusOK {
		p.t.Fatalf("the machine %q that the program made: %d %s", id, a.Status, a.Text())
	}
	a.Into(p.t, &m)
	if m.Hostname != "typed" || m.Description != description {
		p.t.Errorf("the program made %s, %q", m.Hostname, m.Description)
	}
}
