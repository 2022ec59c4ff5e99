package openapi_test

import (
	"context"
	"regexp"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/openapi"
)

func load(t *testing.T, b []byte) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(b)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestDocumentsAreValid(t *testing.T) {
	for name, b := range map[string][]byte{"maas.yaml": openapi.MAAS, "ingot.yaml": openapi.Ingot} {
		if err := load(t, b).Validate(context.Background()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The MAAS API has 108 handlers and 390 operations, plus is_action_in_progress for anonymous callers on five of the handlers.
func TestEveryOperationIsDocumented(t *testing.T) {
	handlers, operations := 0, 0
	for _, h := range api.Handlers {
		if h.Prefix == "/MAAS/api/2.0" {
			handlers++
			operations += len(h.Ops)
		}
	}
	if handlers != 108 || operations != 395 {
		t.Errorf("%d handlers and %d operations, want 108 and 395", handlers, operations)
	}
}

var permission = regexp.MustCompile(`^(anon|user|admin|internal|owner|owner-or-admin|perm:.+|obj:admin|node:.+|user\(.+\))$`)

func TestTableIsWhole(t *testing.T) {
	for _, h := range api.Handlers {
		if h.Name == "" || h.Doc == "" || h.Prefix == "" {
			t.Errorf("handler %+v lacks name, doc or prefix", h)
		}
		for _, o := range h.Ops {
			if o.Title == "" || o.Status == 0 || !permission.MatchString(o.Permission) {
				t.Errorf("%s: title %q, status %d, permission %q", o.ID, o.Title, o.Status, o.Permission)
			}
			if api.Lookup(o.ID) != o || o.Handler != h {
				t.Errorf("%s: not linked", o.ID)
			}
			if (o.Status == 204) != (o.Returns == "") && o.Status != 201 {
				t.Errorf("%s: status %d returns %q", o.ID, o.Status, o.Returns)
			}
			for _, p := range o.Params {
				if p.In == api.Path && p.Required {
					found := false
					for _, name := range api.PathParams(o.Path) {
						found = found || name == p.Name
					}
					if !found {
						t.Errorf("%s: path parameter %s is not in %s", o.ID, p.Name, o.Path)
					}
				}
			}
		}
	}
}
