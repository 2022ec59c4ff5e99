package provisioner

import (
	"embed"
	"io/fs"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// scriptFiles are the hardware tests, in MAAS's format and under MAAS's names: clients choose tests by name.
//
//go:embed scriptfiles/*.sh
var scriptFiles embed.FS

// shippedScripts are the texts of all scripts that come with the program.
func shippedScripts() ([]string, error) {
	out := slices.Clone(builtinScripts)
	names, err := fs.Glob(scriptFiles, "scriptfiles/*.sh")
	for _, n := range names {
		b, rerr := scriptFiles.ReadFile(n)
		if rerr != nil {
			return nil, rerr
		}
		out = append(out, strings.Replace(string(b), "@FETCH-AGENT@\n", fetchAgent, 1))
	}
	return out, err
}

// wantsDistribution tells whether a script wants the full environment: one of a user's, of which nobody knows what it calls, or one of
// ours that needs a package. The light environment has what the others need.
func wantsDistribution(x *storage.Script) bool {
	return !x.IsDefault || slices.Contains([]string{"fio", "7z"}, x.Name)
}
