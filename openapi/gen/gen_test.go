package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// What is committed is what the documents make.
func TestGeneratedIsClean(t *testing.T) {
	const root = "../.."
	tmp := t.TempDir()
	for _, dir := range []string{"openapi", "api/client", "server/oapi"} {
		if err := os.MkdirAll(filepath.Join(tmp, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, doc := range []string{"maas.yaml", "ingot.yaml"} {
		b, err := os.ReadFile(filepath.Join(root, "openapi", doc))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tmp, "openapi", doc), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A file that nothing generates any more must go.
	stale := filepath.Join(tmp, "api", "stale_gen.go")
	if err := os.WriteFile(stale, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(tmp); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("stale_gen.go survived")
	}
	for _, dir := range []string{"api", "api/client", "server/oapi"} {
		want, _ := filepath.Glob(filepath.Join(tmp, dir, "*_gen.go"))
		got, _ := filepath.Glob(filepath.Join(root, dir, "*_gen.go"))
		if len(want) == 0 || len(want) != len(got) {
			t.Errorf("%s holds %d generated files, the documents make %d: run make generate", dir, len(got), len(want))
		}
		for _, path := range want {
			a, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(root, dir, filepath.Base(path)))
			if err != nil || !bytes.Equal(a, b) {
				t.Errorf("%s/%s is not what the documents make: run make generate", dir, filepath.Base(path))
			}
		}
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{"system_id": "SystemID", "default_gateways": "DefaultGateways", "gateway_ip": "GatewayIP"} {
		if got := field(in); got != want {
			t.Errorf("field(%q) = %q, want %q", in, got, want)
		}
	}
	if got := camel("ssh_keys.create"); got != "SshKeysCreate" {
		t.Errorf("camel = %q", got)
	}
}

// Each mistake in a document is refused, and the refusal names it.
func TestRefusals(t *testing.T) {
	const head = "openapi: 3.0.3\ninfo: {title: t, version: v}\nservers: [{url: /x}]\n"
	const tag = "tags: [{name: a, description: A., x-handler: AHandler, x-group: g}]\n"
	get := func(op string) string {
		return head + tag + "paths:\n  /a/:\n    get: {operationId: a.read, tags: [a], summary: s, x-permission: user, " + op + "}\n"
	}
	for name, doc := range map[string]string{
		"tag without handler":   head + "tags: [{name: a}]\npaths: {}\n",
		"undeclared tag":        head + "paths:\n  /a/:\n    get: {operationId: a.read, tags: [b], responses: {'204': {description: d}}}\n",
		"no success":            get("responses: {default: {description: d}}"),
		"unknown x-type":        get("parameters: [{name: p, in: query, schema: {type: boolean, x-type: maybe}}], responses: {'204': {description: d}}"),
		"object as a parameter": get("parameters: [{name: p, in: query, schema: {type: object}}], responses: {'204': {description: d}}"),
		"x-same-as nothing":     get("x-same-as: b.read, responses: {'204': {description: d}}"),
		"not OpenAPI":           "openapi: 3.0.3\npaths: {}\n",
	} {
		if err := new(model).add("x.yaml", []byte(doc)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := new(model).add("x.yaml", []byte(get("responses: {'204': {description: d}}"))); err != nil {
		t.Errorf("a good document is refused: %v", err)
	}
}
