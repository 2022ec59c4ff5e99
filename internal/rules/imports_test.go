package rules

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ingot-metal/ingot"

// rule restricts what the packages at or below Of import. Paths are relative to the module; "std" is the standard library.
type rule struct {
	of  string
	why string
	// only: the whole list of this module's packages that may be imported. deny: packages, of this module or others, that may not.
	only []string
	deny []string
	// stdOnly: nothing but the standard library (and the package's own subtree).
	stdOnly bool
}

var ruleList = []rule{
	{of: "api", stdOnly: true, why: "clients and agents build on the types without taking our dependencies along"},
	{of: "api/client", only: []string{"api"}, why: "the SDK is for everybody: it knows the wire and nothing of the server"},
	{of: "storage", only: []string{"storage"}, why: "records and SQL are the bottom: rules and wire stand on them, never under them"},
	{of: "provisioner", only: []string{"provisioner", "storage", "api", "internal"}, why: "the rules do not know how they are called: no HTTP, no rack"},
	{of: "provisioner/power", only: []string{"provisioner/power"}, why: "drivers run on racks: whatever they import, every rack carries"},
	{of: "provisioner/layout", only: []string{"api", "provisioner/layout"}, why: "layouts are pure: records in, plan out, no store"},
	{of: "provisioner/preseed/kickstart", only: []string{"api", "provisioner/layout", "provisioner/preseed/sshkey", "provisioner/preseed/kickstart"}, why: "preseeds are pure: records in, text out"},
	{of: "provisioner/preseed/windows", only: []string{"api", "provisioner/layout", "provisioner/preseed/sshkey", "provisioner/preseed/windows"}, why: "preseeds are pure: records in, text out"},
	{of: "provisioner/preseed/sshkey", stdOnly: true, why: "keys are text: who has them is somebody else's"},
	{of: "provisioner/preseed", only: []string{"api", "provisioner/layout", "provisioner/preseed"}, why: "preseeds are pure: what a machine is goes in, documents come out, no store"},
	{of: "provisioner/tagdef", only: []string{"provisioner/tagdef"}, why: "definitions are pure: documents and an expression in, a verdict out"},
	{of: "provisioner/content", only: []string{"provisioner/content"}, why: "blobs are files: what they mean is somebody else's"},
	{of: "provisioner/jobs", only: []string{"storage", "provisioner/jobs"}, why: "the queue does not know what jobs do"},
	{of: "server", only: []string{"server", "provisioner", "storage", "api", "openapi", "internal"},
		deny: []string{"github.com/go-openapi/runtime", module + "/api/client", module + "/bootsrv"},
		why:  "the region's HTTP face must not depend on the SDK's runtime nor on the rack"},
	{of: "bootsrv", only: []string{"bootsrv", "api", "api/client", "provisioner/power", "internal"},
		deny: []string{module + "/storage", module + "/server"},
		why:  "a rack goes on while the region is away: it has no database and no rules, only the snapshot"},
	{of: "bootsrv/bootcfg", only: []string{"api", "bootsrv/view", "bootsrv/bootcfg"}, why: "boot files are a pure function of request and snapshot"},
	{of: "agent", only: []string{"agent", "api"}, why: "the agent runs alone on machines: it knows the protocol, not the server"},
	{of: "lab", only: []string{"lab", "api"}, why: "lab machines are clients like real ones: what they could not know, they must not know"},
	{of: "lab/qemu", only: []string{"lab", "api"}, why: "lab machines are clients like real ones: what they could not know, they must not know"},
	{of: "cmd/ingot/cli", only: []string{"api", "api/client"}, why: "the command line speaks to any server of the API: it knows the wire, and nothing of ours"},
	{of: "cmd/ingot-agent", only: []string{"agent", "api"}, why: "the agent's binary is small and knows nothing of the server"},
}

type file struct {
	pkg     string // relative to the module
	name    string
	test    bool
	imports []string
	doc     bool
}

func load(t *testing.T) []file {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	var out []file
	fset := token.NewFileSet()
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if rel == "." {
				return nil
			}
			base := d.Name()
			if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "node_modules" {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		x := file{pkg: path.Dir(filepath.ToSlash(rel)), name: filepath.ToSlash(rel), test: strings.HasSuffix(p, "_test.go"), doc: f.Doc != nil}
		for _, i := range f.Imports {
			x.imports = append(x.imports, strings.Trim(i.Path.Value, `"`))
		}
		out = append(out, x)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("only %d files found: the walk is broken", len(out))
	}
	return out
}

func below(p, root string) bool { return p == root || strings.HasPrefix(p, root+"/") }

// local returns an import's path in this module.
func local(i string) (string, bool) {
	if i == module {
		return ".", true
	}
	return strings.CutPrefix(i, module+"/")
}

func isStd(i string) bool {
	first, _, _ := strings.Cut(i, "/")
	return !strings.Contains(first, ".")
}

// ruleFor finds the most specific rule of a package.
func ruleFor(pkg string) (best rule, ok bool) {
	for _, r := range ruleList {
		if below(pkg, r.of) && (!ok || len(r.of) > len(best.of)) {
			best, ok = r, true
		}
	}
	return best, ok
}

func TestImports(t *testing.T) {
	for _, f := range load(t) {
		if f.test {
			continue // tests may put a server and a rack together
		}
		r, ok := ruleFor(f.pkg)
		if !ok {
			continue
		}
		for _, i := range f.imports {
			own, isOurs := local(i)
			switch {
			case r.stdOnly && !isStd(i) && !(isOurs && below(own, f.pkg)):
				t.Errorf("%s imports %s: %s is standard library only, because %s", f.name, i, r.of, r.why)
			case isOurs && !r.stdOnly && !below(own, f.pkg) && !slices.ContainsFunc(r.only, func(a string) bool { return allowed(own, a) }):
				t.Errorf("%s imports %s: %s may import %v of this module, because %s", f.name, own, r.of, r.only, r.why)
			case slices.ContainsFunc(r.deny, func(d string) bool { return below(i, d) }):
				t.Errorf("%s imports %s, which %s must not reach, because %s", f.name, i, r.of, r.why)
			}
		}
	}
}

// allowed says whether package p falls under the permission a. The SDK is below api in the tree, not in the rules.
func allowed(p, a string) bool {
	if a == "api" {
		return p == "api"
	}
	return below(p, a)
}

// TestNothingImportsCommands: commands are wiring and belong to nobody.
func TestNothingImportsCommands(t *testing.T) {
	for _, f := range load(t) {
		for _, i := range f.imports {
			if own, ok := local(i); ok && (below(own, "cmd") || below(own, "e2e")) && !below(f.pkg, "cmd") && !below(f.pkg, "e2e") {
				t.Errorf("%s imports %s: commands and whole-system tests are at the top", f.name, own)
			}
		}
	}
}

// TestNoTesting keeps package testing out of what ships: it registers flags and drags its runtime into the binary.
func TestNoTesting(t *testing.T) {
	for _, f := range load(t) {
		if f.test || f.pkg == "storage/storagetest" || below(f.pkg, "e2e") || strings.HasSuffix(f.pkg, "test") {
			continue // helpers of tests, imported by tests only
		}
		for _, i := range f.imports {
			if i == "testing" || strings.HasPrefix(i, "testing/") || i == "net/http/httptest" {
				t.Errorf("%s imports %s", f.name, i)
			}
		}
	}
}

// TestHelpersStayInTests: what may import testing must itself be imported by tests only.
func TestHelpersStayInTests(t *testing.T) {
	for _, f := range load(t) {
		if f.test || strings.HasSuffix(f.pkg, "test") || below(f.pkg, "e2e") {
			continue
		}
		for _, i := range f.imports {
			if own, ok := local(i); ok && strings.HasSuffix(own, "test") {
				t.Errorf("%s imports the test helper %s", f.name, own)
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	has := map[string]bool{}
	real := map[string]bool{}
	for _, f := range load(t) {
		has[f.pkg] = has[f.pkg] || f.doc && !f.test
		real[f.pkg] = real[f.pkg] || !f.test
	}
	for p := range real {
		if real[p] && !has[p] {
			t.Errorf("package %s has no doc comment: say what it owns and what it does not know", p)
		}
	}
}

// TestSize keeps files readable. Generated ones are exempt.
func TestSize(t *testing.T) {
	for _, f := range load(t) {
		if strings.HasSuffix(f.name, "_gen.go") {
			continue
		}
		b, err := os.ReadFile("../../" + f.name)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), "\n"); n > 800 {
			t.Errorf("%s has %d lines; the limit is 800", f.name, n)
		}
	}
}
