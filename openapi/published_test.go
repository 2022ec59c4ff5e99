package openapi_test

import (
	"bytes"
	"reflect"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/openapi"
)

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
		if !reflect.DeepEqual(written, published) {
			t.Errorf("%s: what is published differs from what is written", name)
		}
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
	if _, err := openapi.Published([]byte("a: &a {b: *a}")); err == nil {
		t.Error("a document that holds itself was published")
	}
	if out, err := openapi.Published([]byte("a: &x {b: [1]}\nc: *x\n")); err != nil || bytes.ContainsAny(out, "&*") {
		t.Errorf("%s %v", out, err)
	}
}
