// Command gen reads the documents of openapi/ and writes what is generated from them: the types, parameter structs and operation
// table of package api, the handler interface of server/oapi, the typed methods of api/client. It knows OpenAPI through
// kin-openapi and nothing of MAAS but the extensions that openapi/maas.yaml explains. The same documents give the same bytes.
package main

import (
	"bytes"
	"embed"
	"flag"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed *.tmpl
var templates embed.FS

func main() {
	root := flag.String("root", ".", "root of the module")
	flag.Parse()
	if err := run(*root); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(root string) error {
	m := &model{}
	for _, name := range []string{"maas.yaml", "ingot.yaml"} {
		b, err := os.ReadFile(filepath.Join(root, "openapi", name))
		if err != nil {
			return err
		}
		if err := m.add(name, b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := m.finish(); err != nil {
		return err
	}
	t, err := template.New("").Funcs(template.FuncMap{"comment": comment, "q": quote, "title": camel}).ParseFS(templates, "*.tmpl")
	if err != nil {
		return err
	}
	files := map[string][]byte{}
	emit := func(path, tmpl string, data any) error {
		var b bytes.Buffer
		if err := t.ExecuteTemplate(&b, tmpl, data); err != nil {
			return err
		}
		src, err := format.Source(b.Bytes())
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", path, err, numbered(b.String()))
		}
		files[path] = src
		return nil
	}
	if err := emit("api/types_gen.go", "types.tmpl", m); err != nil {
		return err
	}
	if err := emit("server/oapi/handlers_gen.go", "handlers.tmpl", m); err != nil {
		return err
	}
	if err := emit("server/oapi/unimplemented_gen.go", "unimplemented.tmpl", m); err != nil {
		return err
	}
	for _, g := range m.Groups {
		for path, tmpl := range map[string]string{
			"api/ops_" + g.Name + "_gen.go":    "ops.tmpl",
			"api/params_" + g.Name + "_gen.go": "params.tmpl",
			"api/client/" + g.Name + "_gen.go": "client.tmpl",
		} {
			if g.Name == "gone" && tmpl != "ops.tmpl" {
				continue
			}
			if err := emit(path, tmpl, g); err != nil {
				return err
			}
		}
	}
	for path, src := range files {
		path = filepath.Join(root, path)
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, src) {
			continue
		}
		if err := os.WriteFile(path, src, 0o644); err != nil {
			return err
		}
	}
	return sweep(root, files)
}

// sweep removes generated files that this run did not write.
func sweep(root string, files map[string][]byte) error {
	for _, dir := range []string{"api", "api/client", "server/oapi"} {
		old, err := filepath.Glob(filepath.Join(root, dir, "*_gen.go"))
		if err != nil {
			return err
		}
		for _, path := range old {
			if rel, _ := filepath.Rel(root, path); files[filepath.ToSlash(rel)] == nil {
				if err := os.Remove(path); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func quote(s string) string {
	if strings.ContainsAny(s, `"\`) && !strings.ContainsAny(s, "`\n") {
		return "`" + s + "`"
	}
	return fmt.Sprintf("%q", s)
}

func comment(s string) string {
	return "// " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n// ")
}

func numbered(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = fmt.Sprintf("%4d  %s", i+1, lines[i])
	}
	return strings.Join(lines, "\n")
}
