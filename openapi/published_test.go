package openapi_test

import (
	"bytes"
	"reflect"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/openapi"
)

// collides are the paths with a parameter that has the name of a field.
var collides = map[string]bool{"/fabrics/{fabric_id}/vlans/{vid}/": true, "/nodes/{system_id}/interfaces/{id}/op-unlink_subnet": true,
	"/nodes/{system_id}/volume-group/{id}/op-delete_logical_volume": true, "/nodes/{system_id}/volume-groups/{id}/op-delete_logical_volume": true,
	"/scripts/{name}": true, "/tags/{name}/": true, "/zones/{name}/": true}

// What is published says the same as what is written, and needs no reader that knows aliases.
func TestPublished(t *testing.T) {
	for name, document := range map[string][]byte{"maas.yaml": openapi.MAAS, "ingot.yaml": openapi.Ingot} {
		out, err := openapi.Published(document)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var written, published any
		if err := yaml.Unmarshal(document, &written); err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(out, &published); err != nil {
			t.Fatal(err)
		}
		for path, item := range published.(map[string]any)["paths"].(map[string]any) {
			for method, operation := range item.(map[string]any) {
				body, _ := operation.(map[string]any)["requestBody"].(map[string]any)
				content, _ := body["content"].(map[string]any)
				if media, ok := content["application/json"].(map[string]any); ok {
					schema := media["schema"].(map[string]any)
					if schema["title"] == nil && schema["$ref"] == nil {
						t.Errorf("%s: %s %s has a body without a title", name, method, path)
					}
					delete(schema, "title")
				}
			}
		}
		same := 0
		for path, item := range written.(map[string]any)["paths"].(map[string]any) {
			if reflect.DeepEqual(published.(map[string]any)["paths"].(map[string]any)[path], item) {
				same++
			} else if !collides[path] {
				t.Errorf("%s: %s is published otherwise than written", name, path)
			}
		}
		if n := len(written.(map[string]any)["paths"].(map[string]any)); name == "maas.yaml" && same != n-len(collides) || len(published.(map[string]any)["paths"].(map[string]any)) != n {
			t.Errorf("%s: %d of %d paths are the same", name, same, n)
		}
		delete(written.(map[string]any), "paths")
		delete(published.(map[string]any), "paths")
		if !reflect.DeepEqual(written, published) {
			t.Errorf("%s: what is published differs from what is written", name)
		}
		load(t, out)
		var root yaml.Node
		if err := yaml.Unmarshal(out, &root); err != nil {
			t.Fatal(err)
		}
		var walk func(n *yaml.Node)
		walk = func(n *yaml.Node) {
			if n.Anchor != "" || n.Kind == yaml.AliasNode {
				t.Errorf("%s:%d: anchor %q", name, n.Line, n.Anchor)
			}
			for _, c := range n.Content {
				walk(c)
			}
		}
		walk(&root)
	}
	const twice = "paths:\n  /z/{name}/:\n    put:\n      parameters: [{name: name, in: path}]\n      requestBody: {content: {f: {schema: {properties: {name: {}}}}}}\n"
	if out, err := openapi.Published([]byte(twice)); err != nil || !bytes.Contains(out, []byte("/z/{path_name}/")) || !bytes.Contains(out, []byte("{name: path_name, in: path}")) {
		t.Errorf("%s %v", out, err)
	}
	if _, err := openapi.Published([]byte("a: &a {b: *a}")); err == nil {
		t.Error("a document that holds itself was published")
	}
	if out, err := openapi.Published([]byte("a: &x {b: [1]}\nc: *x\n")); err != nil || bytes.ContainsAny(out, "&*") {
		t.Errorf("%s %v", out, err)
	}
}
