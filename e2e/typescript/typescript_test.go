//go:build typescript

package typescript

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/e2e/generated"
)

func TestGeneratedClient(t *testing.T) {
	p := generated.New(t, []string{"package.json", "package-lock.json", ".npmrc", "tsconfig.json", "program.ts"})
	p.Run("npm", "ci")
	bin := filepath.Join(p.Dir, "node_modules", ".bin")
	p.Documents(func(name string) {
		stdout, stderr := p.Run(filepath.Join(bin, "openapi-typescript"), name+".yaml", "-o", name+".ts")
		if out := stdout + stderr; strings.Contains(out, "⚠") || strings.Contains(strings.ToLower(out), "warn") {
			t.Errorf("%s.yaml is not clean:\n%s", name, out)
		}
	})
	p.Run(filepath.Join(bin, "tsc"), "-p", ".")
	p.Use("from TypeScript", "node", filepath.Join("out", "program.js"))
}
