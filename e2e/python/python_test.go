//go:build python

package python

import (
	"path/filepath"
	"testing"

	"github.com/ingot-metal/ingot/e2e/generated"
)

func TestGeneratedClient(t *testing.T) {
	p := generated.New(t, []string{"package.json", "package-lock.json", ".npmrc", "program.py"}, "PYTHONPATH=DIR/maas-client:DIR/ingot-client")
	p.Run("npm", "ci")
	jar := filepath.Join("node_modules", "@openapitools", "openapi-generator-cli", "bin", "openapi-generator.jar")
	p.Documents(func(name string) {
		// The document is validated before; what does not fit the specification ends the run.
		p.Run("java", "-jar", jar, "generate", "-i", name+".yaml", "-g", "python", "--package-name", name, "-o", name+"-client")
		p.Run("python3", "-W", "error", "-m", "compileall", "-q", filepath.Join(name+"-client", name))
	})
	p.Use("from Python", "python3", "program.py")
}
