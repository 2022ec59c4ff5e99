package server

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"sort"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/oapi"
)

var update = flag.Bool("update", false, "write the list of unbuilt operations into openapi/divergences.md")

// overridden are the methods of Server that this package's files declare. Reflection cannot tell them from those that come from
// the embedded Unimplemented; the source can.
func overridden(t *testing.T) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	methods := map[string]bool{}
	for _, entry := range entries {
		if entry.IsDir() || !strings.HasSuffix(entry.Name(), ".go") || strings.HasSuffix(entry.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), entry.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil {
				continue
			}
			if star, ok := f.Recv.List[0].Type.(*ast.StarExpr); ok {
				if id, ok := star.X.(*ast.Ident); ok && id.Name == "Server" {
					methods[f.Name.Name] = true
				}
			}
		}
	}
	return methods
}

func TestUnbuiltList(t *testing.T) {
	const path, begin, end = "../openapi/divergences.md", "<!-- unbuilt:begin -->\n", "<!-- unbuilt:end -->"
	methods := overridden(t)
	interfaceOf := reflect.TypeFor[oapi.Handlers]()
	byHandler := map[string][]string{}
	built := 0
	for _, h := range api.Handlers {
		for _, o := range h.Ops {
			if o.Gone != "" {
				continue
			}
			name := methodName(o.ID)
			if _, ok := interfaceOf.MethodByName(name); !ok {
				t.Fatalf("%s: the interface has no %s", o.ID, name)
			}
			if methods[name] {
				built++
				continue
			}
			handler, op, _ := strings.Cut(o.ID, ".")
			byHandler[handler] = append(byHandler[handler], op)
		}
	}
	if built == 0 {
		t.Fatal("no operation seems to be built: this test looks in the wrong place")
	}
	var handlers []string
	for h := range byHandler {
		handlers = append(handlers, h)
	}
	sort.Strings(handlers)
	var b strings.Builder
	for _, h := range handlers {
		b.WriteString("- " + h + ": " + strings.Join(byHandler[h], ", ") + "\n")
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(file), begin)
	list, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks its markers", path)
	}
	if list == b.String() {
		return
	}
	if !*update {
		t.Fatalf("%s does not list the operations that nobody overrides; run: go test ./server -run TestUnbuiltList -update", path)
	}
	if err := os.WriteFile(path, []byte(head+begin+b.String()+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

// methodName is the name that the generator gives an operation's method.
func methodName(id string) string {
	var b strings.Builder
	for _, w := range strings.FieldsFunc(id, func(r rune) bool { return r == '_' || r == '.' }) {
		b.WriteString(strings.ToUpper(w[:1]) + w[1:])
	}
	return b.String()
}
